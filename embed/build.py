"""Where an index is built, and how it becomes whole: beside its name, or in the store for a pipe.

Knows locks, copies and renames; nothing of what is written into the index.
"""

from __future__ import annotations

import fcntl
import os
import time

from embed import checksum, database, schema
from embed.schema import sqlite
from toast import files, pipes, store
from toast.errors import os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sqlite3 import Connection

    from toast.command import Call

KEPT = 7 * 86400  # seconds for which the store keeps what a killed run left


class Build:
    """An index that is being built: `open` gives its database, `finish` makes the file whole.

    path: the file to replace, or None for standard output. update: begin with the file's content.
    key: names what is being built; only a part with the same key is gone on with.
    """

    db: Connection  # once it is open
    fd = -1

    def __init__(self, call: Call, path: str | None, *, key: str, update: bool = False) -> None:
        self.call, self.update, self.key = call, update, key
        self.path = os.path.realpath(call.path(path)) if path else None
        self.part = f"{self.path}.part" if path else os.path.join(store.home(call), "index", f"{key}.db")
        self.name = path or "standard output"
        self.opened = False

    def open(self, *, anew: bool = False) -> Connection:
        """The database, new or what a killed run left of it; anew: whatever one left."""
        if not self.path:
            os.makedirs(os.path.dirname(self.part), 0o700, exist_ok=True)
            _prune(os.path.dirname(self.part))
        self.fd = self._lock()
        if self.path:
            files.keep_mode(self.fd, self.path, 0o600)
        stamp = self.key + self._base()
        found = None if anew else self._resume(stamp)
        self.db = self._begin(stamp) if found is None else found
        self.db.set_progress_handler(None, 0)  # its pages are a tree: to build on them may take its time
        self.opened = True
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
        if not (self.update and self.path):
            return ""
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise os_error(error, f"open {self.name}") from None
        return f"-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"

    def _resume(self, stamp: str) -> Connection | None:
        if not os.fstat(self.fd).st_size:
            return None
        try:
            db = schema.check(schema.connect_to_build(self.part))
            if database.meta(db).get("stamp") == stamp and schema.version_of(db) == schema.CURRENT:
                self.call.info(f"going on with what is in {self.part}")
                return db
            db.close()
        except (sqlite.Error, schema.Damaged):
            pass
        return None

    def _begin(self, stamp: str) -> Connection:
        for left in ("-journal", "-wal", "-shm"):
            if os.path.exists(self.part + left):
                os.unlink(self.part + left)
        os.ftruncate(self.fd, 0)
        if self.update and self.path:
            base = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            for chunk in schema.copy_chunks(base):
                pipes.write_all(self.fd, chunk, self.part)
            checksum.cut(self.fd)
            os.close(base)
        db = schema.connect_to_build(self.part)
        if self.update:
            schema.upgrade(schema.check(db))
        else:
            schema.create(db)
        database.set_meta(db, stamp=stamp)
        return db

    def finish(self) -> None:
        """Close the database, seal it and put it where it belongs."""
        stamp = database.meta(self.db).get("stamp")
        try:
            database.set_meta(self.db, stamp=None)
            self.db.close()
            checksum.seal(self.call, self.fd, self.part)
            if self.path:
                files.keep_mode(self.fd, self.path)
                files.place(self.fd, self.part, self.path)
                files.sync(os.path.dirname(self.path))
            else:
                self._copy_out()
        except BrokenPipeError:  # the reader has what it wanted
            os.unlink(self.part)
            raise
        except BaseException:  # a full disk, a signal: the next run shall only have to copy
            self._unseal(stamp)
            raise
        os.close(self.fd)

    def _unseal(self, stamp: str | None) -> None:
        """Make the part one that the next run goes on with, unless it is in its place already."""
        if os.path.exists(self.part) and os.path.samestat(os.stat(self.part), os.fstat(self.fd)):
            self.db.close()
            checksum.cut(self.fd)
            self.db = schema.connect_to_build(self.part)
            database.set_meta(self.db, stamp=stamp)

    def _copy_out(self) -> None:
        for chunk in schema.copy_chunks(self.fd):
            pipes.write_all(self.call.stdout, chunk)
        os.unlink(self.part)

    def discard(self) -> None:
        """Nothing came of it: no answer, and no part for another run."""
        self.db.close()
        os.unlink(self.part)
        os.close(self.fd)

    def abandon(self) -> None:
        """Leave things as they are, for the next run, which may be in this process."""
        if self.opened:
            self.db.close()
        if self.fd >= 0:
            os.close(self.fd)


def _prune(folder: str) -> None:
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
