"""Where an index is built, and how it becomes whole: beside its name, or in the store for a pipe.

Knows locks, copies and renames; nothing of what is written into the index.
"""

import fcntl
import os
import time

from embed import checksum, database
from embed.database import sqlite
from toast import files, pipes, store
from toast.errors import os_error

KEPT = 7 * 86400  # seconds for which the store keeps what a killed run left


class Target:
    """An index to be: `open` gives its database, new or what a killed run left of it; `finish` makes it whole.

    path: the file to replace, or None for standard output. update: begin with the file's content.
    key: names what is being built; only a part with the same key is gone on with.
    """

    def __init__(self, call, path: str | None, update: bool, key: str):
        self.call, self.update, self.key = call, update, key
        self.path = os.path.realpath(call.path(path)) if path else None
        self.part = f"{self.path}.part" if path else os.path.join(store.home(call), "index", f"{key}.db")
        self.name = path or "standard output"
        self.db = self.fd = None

    def open(self, anew: bool = False):
        """The database; anew: whatever a killed run left."""
        if not self.path:
            os.makedirs(os.path.dirname(self.part), 0o700, exist_ok=True)
            _prune(os.path.dirname(self.part))
        self.fd = self._lock()
        if self.path:
            files.keep_mode(self.fd, self.path, 0o600)
        stamp = self.key + self._base()
        self.db = None if anew else self._resume(stamp)
        if self.db is None:
            self.db = self._begin(stamp)
        return self.db

    def _lock(self) -> int:
        """A descriptor of the part, locked for as long as it is open."""
        while True:
            try:
                fd = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666 if self.path else 0o600)
            except OSError as error:
                raise os_error(error, f"write {self.part}") from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.call.warn(f"waiting for another run that writes {self.name}")
                fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.stat(self.part), os.fstat(fd)):
                    return fd
            except FileNotFoundError:
                pass
            os.close(fd)  # the other run has renamed it meanwhile

    def _base(self) -> str:
        """What tells the file that an update begins with from another version of it."""
        if not self.update:
            return ""
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise os_error(error, f"open {self.name}") from None
        return f"-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"

    def _resume(self, stamp):
        if not os.fstat(self.fd).st_size:
            return None
        try:
            db = self._connect()
            if database.meta(db).get("stamp") == stamp:
                self.call.info(f"going on with what is in {self.part}")
                return db
            db.close()
        except sqlite.Error:
            pass
        return None

    def _begin(self, stamp):
        for left in ("-journal", "-wal", "-shm"):
            if os.path.exists(self.part + left):
                os.unlink(self.part + left)
        os.ftruncate(self.fd, 0)
        if self.update:
            base = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            for chunk in database.copy_chunks(base):
                pipes.write_all(self.fd, chunk, self.part)
            checksum.cut(self.fd)
            os.close(base)
        db = self._connect()
        if not self.update:
            database.create(db)
        database.set_meta(db, stamp=stamp)
        return db

    def _connect(self):
        db = database.connect(self.part)
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "synchronous = NORMAL",
            "cache_size = -32000",
            "temp_store = MEMORY",
        ):
            db.execute(f"PRAGMA {pragma}")
        return db

    def finish(self) -> None:
        """Close the database, seal it and put it where it belongs."""
        stamp = database.meta(self.db).get("stamp")
        try:
            database.set_meta(self.db, stamp=None)
            self.db.close()
            checksum.seal(self.call, self.fd, self.part)
            self._replace() if self.path else self._copy_out()
        except BrokenPipeError:  # the reader has what it wanted
            os.unlink(self.part)
            raise
        except BaseException:  # a full disk, a signal: the next run shall only have to copy
            self._unseal(stamp)
            raise
        os.close(self.fd)

    def _unseal(self, stamp) -> None:
        """Make the part one that the next run goes on with, unless it is in its place already."""
        if os.path.exists(self.part) and os.path.samestat(os.stat(self.part), os.fstat(self.fd)):
            self.db.close()
            checksum.cut(self.fd)
            self.db = self._connect()
            database.set_meta(self.db, stamp=stamp)

    def _replace(self) -> None:
        files.keep_mode(self.fd, self.path)
        files.place(self.fd, self.part, self.path)
        files.sync(os.path.dirname(self.path))

    def _copy_out(self) -> None:
        for chunk in database.copy_chunks(self.fd):
            pipes.write_all(self.call.stdout, chunk)
        os.unlink(self.part)

    def discard(self) -> None:
        """Nothing came of it: no answer, and no part for another run."""
        self.db.close()
        os.unlink(self.part)
        os.close(self.fd)

    def abandon(self) -> None:
        """Leave things as they are, for the next run."""
        if self.db:
            self.db.close()


def _prune(folder) -> None:
    """Drop the parts that nobody has come back for."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if time.time() - os.fstat(fd).st_mtime > KEPT:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a run that is at it holds it
                os.unlink(path)
        except OSError:
            pass
        finally:
            os.close(fd)
