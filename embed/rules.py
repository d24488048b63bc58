"""Which files of a tree are to be passed over: what ignore files say in a folder, in ripgrep's order.

`.ignore` comes before `.gitignore`, that before `.git/info/exclude`, that before git's `core.excludesFile`; of a
kind the deepest file speaks first. Knows folders and git's places; nothing of patterns (`ignores.py`) or of files.
"""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pathspec import GitIgnoreSpec

    Spec = tuple[str, GitIgnoreSpec]  # of what is below a folder, with a slash
    Layers = tuple[tuple[Spec, ...], ...]  # git's own files, .gitignore, .ignore; of each the outermost first
    Read = Callable[[str, str], Iterable[Spec]]  # (a file, the folder it is for) -> its patterns, if it can be read

NAMES = {".gitignore": 1, ".ignore": 2}
EXCLUDES = re.compile(r"^\s*excludesfile\s*=\s*\"?([^\"\n]*?)\"?\s*$", re.IGNORECASE | re.MULTILINE)
SETTINGS = 1 << 16  # bytes of a git configuration that are looked at


class Rules:
    """What holds in a folder; `inside` gives those of one below it."""

    def __init__(self, read: Read, env: Mapping[str, str], layers: Layers = ((), (), ())) -> None:
        self.read, self.env, self.layers = read, env, layers

    def ignored(self, path: str) -> bool:
        """Whether an absolute path (a folder's with a slash) is passed over."""
        for layer in reversed(self.layers):
            for folder, spec in reversed(layer):
                below = os.fsencode(path.removeprefix(folder)).decode("latin-1")
                verdict = spec.check_file(below).include
                if verdict is not None:
                    return verdict
        return False

    def inside(self, folder: str, names: set[str]) -> Rules:
        """Those of a folder that has these names (of ignore files, and .git)."""
        layers = list(self.layers)
        if ".git" in names:
            layers[0] = tuple(self._of_git(folder))
        for name, layer in NAMES.items():
            if name in names:
                layers[layer] += tuple(self.read(os.path.join(folder, name), folder))
        return Rules(self.read, self.env, tuple(layers)) if layers != list(self.layers) else self

    def above(self, folder: str) -> Rules:
        """Those that hold for an absolute folder from above it: git's as far as its repository goes; none where they
        exclude the folder itself, which was named."""
        named, found = folder, []
        repository = None if os.path.lexists(os.path.join(folder, ".git")) else ""
        while folder != os.path.dirname(folder):
            folder = os.path.dirname(folder)
            found.append(folder)
            if repository == "" and os.path.lexists(os.path.join(folder, ".git")):
                repository = folder
        rules = self
        for folder in reversed(found):
            within = bool(repository) and (folder + "/").startswith(f"{repository}/")
            there = {name for name in (".gitignore", ".ignore", ".git") if _is_there(folder, name)}
            rules = rules.inside(folder, there if within else there & {".ignore"})
        return self if rules.ignored(named + "/") else rules

    def _of_git(self, repository: str) -> Iterable[Spec]:
        git = _git_folder(repository)
        named = _excludes_file(self.env, os.path.join(git, "config"))
        settings = os.path.join(repository, named) if named else ""  # git's working directory is the repository's top
        for path in (settings, os.path.join(git, "info", "exclude")):
            if path and os.path.isfile(path):
                yield from self.read(path, repository)


def _is_there(folder: str, name: str) -> bool:
    path = os.path.join(folder, name)
    return os.path.lexists(path) if name == ".git" else os.path.isfile(path)


def _git_folder(repository: str) -> str:
    """Where a repository's own files are: a worktree and a submodule only have a file that says so."""
    path = os.path.join(repository, ".git")
    if os.path.isfile(path):
        path = os.path.join(repository, _text(path).removeprefix("gitdir:").strip())
        path = os.path.join(path, _text(os.path.join(path, "commondir")).strip())
    return path


def _excludes_file(env: Mapping[str, str], own: str) -> str:
    """git's `core.excludesFile`, as the repository's own configuration, else the user has set it, else where git looks
    for it."""
    home = env.get("HOME", "")
    config = env.get("XDG_CONFIG_HOME") or (os.path.join(home, ".config") if home else "")
    for name in (own, os.path.join(home, ".gitconfig") if home else "", os.path.join(config, "git", "config")):
        found = EXCLUDES.findall(_text(name)) if name else []
        if found:
            return os.path.join(home, found[-1][2:]) if found[-1].startswith("~/") else found[-1]
    return os.path.join(config, "git", "ignore") if config else ""


def _text(path: str) -> str:
    """A small file of git's; nothing where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, SETTINGS).decode("utf-8", "surrogateescape")
    except OSError:
        return ""
    finally:
        os.close(fd)
