"""Which files under the named ones are text to index.

Knows directories, links, .gitignore and sizes; nothing of chunks or tables.
"""

import os
import stat

from toast.errors import os_error

SNIFFED = 8192  # bytes in which a NUL tells a binary file


class Walk:
    """Files below `roots`, in a fixed order: iterating gives (path, bytes), or (path, None) for a
    root that is not there.

    A root that is a file is taken whatever .gitignore says. In directories: hidden files, links and
    what .gitignore names are passed over. Binary files and files over `largest` bytes are counted
    in `skipped`. whole: these are all the files that there are to be.
    """

    def __init__(self, call, roots, largest: int, whole: bool = False):
        self.call, self.roots, self.largest, self.whole = call, roots, largest, whole
        self.skipped = {"binary": 0, "too large": 0}
        self.folders = []  # the roots that were directories

    def __iter__(self):
        self.folders, self.skipped = [], dict.fromkeys(self.skipped, 0)
        for path, there in self._paths():
            if there:
                yield from self._file(path)
            else:
                yield path, None

    def size(self) -> int:
        """Bytes of all files, by their names alone, and one for each, as Document.size has it."""
        return sum(os.stat(self.call.path(path)).st_size + 1 for path, there in self._paths() if there)

    def _paths(self):
        """(path, whether it is there) of each file."""
        for root in self.roots:
            path = os.path.normpath(root)
            try:
                folder = stat.S_ISDIR(os.stat(self.call.path(path)).st_mode)
            except OSError:
                yield path, False
                continue
            if folder:
                self.folders.append(path)
                yield from self._folder("" if path == "." else path, self._above(path))
            else:
                yield path, True

    def _folder(self, path, ignores):
        full = self.call.path(path or ".")
        try:
            with os.scandir(full) as found:
                entries = sorted(found, key=lambda e: e.name)
        except OSError as error:
            self.call.error(str(os_error(error, f"read {path}")))
            return
        if any(e.name == ".gitignore" for e in entries):
            ignores = [*ignores, _ignore(full)]
        for entry in entries:
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            folder = entry.is_dir(follow_symlinks=False)
            if _ignored(ignores, os.path.join(full, entry.name) + "/" * folder):
                continue
            if folder:
                yield from self._folder(os.path.join(path, entry.name), ignores)
            elif entry.is_file(follow_symlinks=False):
                yield os.path.join(path, entry.name), True

    def _above(self, path):
        """The .gitignore files that hold for a folder from above it, up to its repository's top."""
        folder, found = os.path.realpath(self.call.path(path)), []
        while not os.path.exists(os.path.join(folder, ".git")):
            folder, below = os.path.dirname(folder), folder
            if folder == below:
                return []  # no repository
            if os.path.isfile(os.path.join(folder, ".gitignore")):
                found.append(_ignore(folder))
        return found[::-1]

    def _file(self, path):
        try:
            fd = self.call.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            self.call.error(str(os_error(error, f"open {path}")))
            return
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and status.st_size > self.largest:
                self.skipped["too large"] += 1
                self.call.info(f"{path}: {status.st_size} bytes, skipped")
                return
            try:
                data = file.read(self.largest + 1) or b""
            except OSError as error:
                self.call.error(str(os_error(error, f"read {path}")))
                return
        if b"\0" in data[:SNIFFED]:
            self.skipped["binary"] += 1
            self.call.info(f"{path}: binary, skipped")
        else:
            yield path, data


def _ignore(folder):
    """(folder, its .gitignore)."""
    from pathspec import GitIgnoreSpec

    with open(os.path.join(folder, ".gitignore"), encoding="utf-8", errors="replace") as file:
        return os.path.realpath(folder) + "/", GitIgnoreSpec.from_lines(_valid(file))


def _valid(lines):
    """The patterns that git would read; it passes over those that it cannot."""
    from pathspec.patterns.gitwildmatch import GitWildMatchPattern, GitWildMatchPatternError

    for line in lines:
        try:
            GitWildMatchPattern(line)
            yield line
        except (GitWildMatchPatternError, ValueError):
            pass


def _ignored(ignores, path) -> bool:
    """Whether the deepest .gitignore that speaks of the path excludes it."""
    for folder, spec in reversed(ignores):
        verdict = spec.check_file(path.removeprefix(folder)).include
        if verdict is not None:
            return verdict
    return False
