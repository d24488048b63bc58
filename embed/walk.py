"""Which files under the named ones are read for an index, and what is passed over.

Knows directories, links, sizes and what tells a binary file; nothing of ignore files (`rules.py`), of what a file
holds (`formats`), of chunks or tables.
"""

from __future__ import annotations

import os
import stat

from embed import formats
from toast import pipes
from toast.errors import ignoring, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from embed.filters import Globs
    from embed.rules import Rules, Spec
    from toast.command import Call

OURS = b"tidx"  # where an index has its name (embed/schema.py)
REPOSITORIES = {".git", ".hg", ".svn", ".jj"}
LARGE = "too large"


class Walk:
    """Files below `roots`, in a fixed order: iterating gives (path, bytes), or (path, None) for a
    root that is not there.

    A root is taken whatever ignore files say; of a pipe, all that it gives. In directories: hidden files (unless
    `hidden`), links and what ignore files name are passed over. What `excluded` globs name is in any case. Binary
    files and files over `largest` bytes are counted in `skipped`. whole: these are all the files that there are to be.
    """

    def __init__(
        self, call: Call, roots: list[str], *,
        largest: int, whole: bool = False, hidden: bool = False, excluded: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.call, self.roots, self.largest, self.whole, self.hidden = call, roots, largest, whole, hidden
        self.skipped: dict[str, int] = {}  # why -> how many
        self.folders: list[str] = []  # the roots that were directories
        self.named: set[str] = set()  # the others
        self.failed: set[str] = set()  # paths that could not be read
        self.told: set[str] = set()  # of which a word was said
        self.excluded: Globs | None = None
        if excluded:
            from embed.filters import Globs

            self.excluded = Globs(pipes.path_of(call.cwd), excluded, option="--exclude")

    def __iter__(self) -> Iterator[tuple[str, bytes | None]]:
        self.folders, self.skipped, self.out = [], {}, os.fstat(self.call.stdout)
        for path, there, root in self._paths():
            if there:
                yield from self._file(path, root=root)
            else:
                yield path, None

    def missing(self) -> str | None:
        """The first root that is not there; of one that cannot be read the walk tells."""
        for root in self.roots:
            with ignoring(OSError):
                if self._is_folder(os.path.normpath(root)) is None:
                    return root
        return None

    def size(self) -> int:
        """Bytes of all files, by their names alone, and one for each, as Document.size has it."""
        return sum(self._size(path) + 1 for path, there, _ in self._paths() if there)

    def _size(self, path: str) -> int:
        try:
            return os.stat(self.call.path(path)).st_size
        except OSError:  # gone meanwhile; reading will tell
            return 0

    def covers(self, path: str) -> bool:
        """Whether a file of this path would have been found if it were there and could be read."""
        if any(path == failed or _inside(path, failed) for failed in self.failed):
            return False
        return self.whole or any(_inside(path, folder) for folder in self.folders)

    def _fail(self, error: OSError, verb: str, path: str) -> None:
        """Say once, however often the walk is made, that something cannot be read."""
        self.failed.add(path)
        if path not in self.told:
            self.told.add(path)
            self.call.error(str(os_error(error, f"{verb} {path}")))

    def skip(self, why: str, path: str, *, told: str = "") -> None:
        """Pass over a file: counted, and said at once where it was named."""
        named = path in self.named
        self.skipped[why] = self.skipped.get(why, 0) + (not named)
        say = self.call.warn if named else self.call.info
        if path not in self.told:
            self.told.add(path)
            say(f"{path}: {told or why}, skipped")

    def _paths(self) -> Iterator[tuple[str, bool, bool]]:
        """(path, whether it is there, whether it was named) of each file."""
        for root in self.roots:
            path = os.path.normpath(root)
            try:
                folder = self._is_folder(path)
            except OSError as error:
                self._fail(error, "open", path)
                continue
            if folder is None:
                yield path, False, True
            elif folder:
                self.folders.append(path)
                for name in self._folder("" if path == "." else path, self._rules(path)):
                    yield name, True, False
            elif not self._is_excluded(path):
                self.named.add(path)
                yield path, True, True

    def _is_folder(self, root: str) -> bool | None:
        """Whether a root is a folder; None where it is not there."""
        try:
            return stat.S_ISDIR(os.stat(self.call.path(root)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _folder(self, path: str, rules: Rules) -> Iterator[str]:
        """The files below a folder; a list of open folders, since they may be deeper than calls can be."""
        levels = [self._entries(path, rules)]
        while levels:
            name, inner = next(levels[-1], (None, None))
            if name is None:
                levels.pop()
            elif inner is None:
                yield name
            else:
                levels.append(self._entries(name, inner))

    def _entries(self, path: str, rules: Rules) -> Iterator[tuple[str, Rules | None]]:
        """(path, None) of each file of a folder, (path, the rules that hold there) of each folder."""
        full = self.call.path(path or ".")
        try:
            with os.scandir(full) as found:
                entries = sorted(found, key=lambda e: e.name)
        except OSError as error:
            self._fail(error, "read", path or ".")
            return
        special = {e.name for e in entries if e.name.startswith(".") and (e.name == ".git" or e.is_file())}
        if special:
            rules = rules.inside(full, special)
        for entry in entries:
            hidden = entry.name.startswith(".") and (not self.hidden or entry.name in REPOSITORIES)
            if hidden or entry.is_symlink():
                continue
            folder, name = entry.is_dir(follow_symlinks=False), os.path.join(path, entry.name)
            if rules.ignored(os.path.join(full, entry.name) + "/" * folder) or self._is_excluded(name, folder=folder):
                continue
            if folder:
                yield name, rules
            elif entry.is_file(follow_symlinks=False):
                yield name, None

    def _is_excluded(self, path: str, *, folder: bool = False) -> bool:
        return self.excluded is not None and self.excluded.match(path, folder=folder)

    def _rules(self, path: str) -> Rules:
        """Those that hold for a named folder."""
        from embed.rules import Rules

        return Rules(self._ignore, self.call.env).above(os.path.realpath(self.call.path(path)))

    def _ignore(self, name: str, folder: str) -> list[Spec]:
        """[(folder, the patterns of an ignore file that is for it)]; nothing when that cannot be read."""
        from embed import ignores

        try:
            with open(name, "rb") as file:
                spec, whole = ignores.read(file.read(ignores.LARGEST + 1))
        except OSError as error:
            self._fail(error, "read", name)
            return []
        if not whole and name not in self.told:
            self.told.add(name)
            self.call.warn(f"{name}: too long, only its first {ignores.LARGEST >> 10} KiB were read")
        return [(os.path.realpath(folder) + "/", spec)]

    def _file(self, path: str, *, root: bool) -> Iterator[tuple[str, bytes]]:
        """(path, its bytes), nothing when it is skipped or cannot be read."""
        try:
            if root:
                fd = pipes.open_again(self.call, path, self.largest + 1)
            else:
                fd = self.call.open(path, os.O_RDONLY | os.O_NONBLOCK)
            with open(fd, "rb") as file:
                status = os.fstat(fd)
                data = file.read(self.largest + 1) or b""
        except OSError as error:
            self._fail(error, "read", path)
            return
        if os.path.samestat(status, self.out):  # `index . > x.db`: the shell has made it already
            return
        if data[68:72] == OURS:  # an index is never meant
            self.call.info(f"{path}: an index, skipped")
        elif len(data) > self.largest:
            self.skip(LARGE, path)
        elif why := formats.refused(path, data):
            self.skip(why, path)
        else:
            yield path, data


def _inside(path: str, folder: str) -> bool:
    if folder == ".":
        return not path.startswith(("/", "../"))
    return path.startswith(folder.rstrip("/") + "/")
