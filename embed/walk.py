"""Which files under the named ones are text to index.

Knows directories, links, .gitignore and sizes; nothing of chunks or tables.
"""

from __future__ import annotations

import os
import stat

from toast import pipes
from toast.errors import os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pathspec import GitIgnoreSpec

    from toast.command import Call

    Ignores = list[tuple[str, GitIgnoreSpec]]  # (folder with a slash, its .gitignore), the outermost first

SNIFFED = 8192  # bytes in which a NUL tells a binary file


class Walk:
    """Files below `roots`, in a fixed order: iterating gives (path, bytes), or (path, None) for a
    root that is not there.

    A root is taken whatever .gitignore says; of a pipe, all that it gives. In directories: hidden
    files, links and what .gitignore names are passed over. Binary files and files over `largest`
    bytes are counted in `skipped`. whole: these are all the files that there are to be.
    """

    def __init__(self, call: Call, roots: list[str], *, largest: int, whole: bool = False) -> None:
        self.call, self.roots, self.largest, self.whole = call, roots, largest, whole
        self.skipped = {"binary": 0, "too large": 0}
        self.folders: list[str] = []  # the roots that were directories
        self.failed: set[str] = set()  # paths that could not be read
        self.told: set[str] = set()  # of which a word was said

    def __iter__(self) -> Iterator[tuple[str, bytes | None]]:
        self.folders, self.skipped = [], dict.fromkeys(self.skipped, 0)
        for path, there, root in self._paths():
            if there:
                yield from self._file(path, root=root)
            else:
                yield path, None

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

    def _skip(self, why: str, path: str, *, root: bool) -> None:
        """Pass over a file; one that was named, not in silence."""
        self.skipped[why] += not root
        say = self.call.warn if root else self.call.info
        if path not in self.told:
            self.told.add(path)
            say(f"{path}: {why}, skipped")

    def _paths(self) -> Iterator[tuple[str, bool, bool]]:
        """(path, whether it is there, whether it was named) of each file."""
        for root in self.roots:
            path = os.path.normpath(root)
            try:
                folder = stat.S_ISDIR(os.stat(self.call.path(path)).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                yield path, False, True
                continue
            except OSError as error:
                self._fail(error, "open", path)
                continue
            if folder:
                self.folders.append(path)
                for name in self._folder("" if path == "." else path, self._above(path)):
                    yield name, True, False
            else:
                yield path, True, True

    def _folder(self, path: str, ignores: Ignores) -> Iterator[str]:
        """The files below a folder; a list of open folders, since they may be deeper than calls can be."""
        levels = [self._entries(path, ignores)]
        while levels:
            name, inner = next(levels[-1], (None, None))
            if name is None:
                levels.pop()
            elif inner is None:
                yield name
            else:
                levels.append(self._entries(name, inner))

    def _entries(self, path: str, ignores: Ignores) -> Iterator[tuple[str, Ignores | None]]:
        """(path, None) of each file of a folder, (path, the .gitignore files that hold there) of each folder."""
        full = self.call.path(path or ".")
        try:
            with os.scandir(full) as found:
                entries = sorted(found, key=lambda e: e.name)
        except OSError as error:
            self._fail(error, "read", path or ".")
            return
        if any(e.name == ".gitignore" and e.is_file() for e in entries):
            ignores = [*ignores, *self._ignore(full)]
        for entry in entries:
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            folder = entry.is_dir(follow_symlinks=False)
            if _ignored(ignores, os.path.join(full, entry.name) + "/" * folder):
                continue
            if folder:
                yield os.path.join(path, entry.name), ignores
            elif entry.is_file(follow_symlinks=False):
                yield os.path.join(path, entry.name), None

    def _above(self, path: str) -> Ignores:
        """The .gitignore files that hold for a folder from above it, up to its repository's top; none
        of them where they exclude the folder itself, which was named."""
        found: Ignores = []
        folder = os.path.realpath(self.call.path(path))
        named = folder + "/"
        while not os.path.exists(os.path.join(folder, ".git")):
            folder, below = os.path.dirname(folder), folder
            if folder == below:
                return []  # no repository
            if os.path.isfile(os.path.join(folder, ".gitignore")):
                found += self._ignore(folder)
        return [] if _ignored(found[::-1], named) else found[::-1]

    def _ignore(self, folder: str) -> Ignores:
        """[(folder, its .gitignore)]; nothing when that cannot be read."""
        from embed import ignores

        name = os.path.join(folder, ".gitignore")
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
                data = file.read(self.largest + 1) or b""
        except OSError as error:
            self._fail(error, "read", path)
            return
        if len(data) > self.largest:
            self._skip("too large", path, root=root)
        elif b"\0" in data[:SNIFFED]:
            self._skip("binary", path, root=root)
        else:
            yield path, data


def _inside(path: str, folder: str) -> bool:
    if folder == ".":
        return not path.startswith(("/", "../"))
    return path.startswith(folder.rstrip("/") + "/")


def _ignored(ignores: Ignores, path: str) -> bool:
    """Whether the deepest .gitignore that speaks of the path excludes it."""
    for folder, spec in reversed(ignores):
        below = os.fsencode(path.removeprefix(folder)).decode("latin-1")
        verdict = spec.check_file(below).include
        if verdict is not None:
            return verdict
    return False
