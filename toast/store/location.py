"""Where the store is: the folder of everything that is kept between runs."""

from __future__ import annotations

import os

from toast.errors import ModelNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call


def home(call: Call) -> str:
    """$TOAST_HOME, else $XDG_CACHE_HOME/toast, else ~/.cache/toast, else a per-user folder."""
    env = call.env
    if env.get("TOAST_HOME"):
        return call.path(env["TOAST_HOME"])
    if os.path.isabs(env.get("XDG_CACHE_HOME", "")):
        return os.path.join(env["XDG_CACHE_HOME"], "toast")
    if env.get("HOME"):
        return os.path.join(call.path(env["HOME"]), ".cache", "toast")
    return _home_without_home()


def _home_without_home() -> str:
    """The password database's home; failing that, a folder in /var/tmp that is only ours."""
    import pwd

    try:
        path = pwd.getpwuid(os.getuid()).pw_dir
        if os.access(path, os.W_OK):
            return os.path.join(path, ".cache", "toast")
    except KeyError:
        pass
    path = f"/var/tmp/toast-{os.getuid()}"
    os.makedirs(path, 0o700, exist_ok=True)
    status = os.lstat(path)
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ModelNotFound(f"{path} is not a private folder of yours", "set TOAST_HOME=FOLDER")
    return path
