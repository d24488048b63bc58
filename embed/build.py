"""Where an index is built and how it becomes whole: beside its name, or for standard output in the store or $TMPDIR.

Knows copies and renames; nothing of what is written into the index, or of what a part is (`part.py`).
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

from embed import checksum, database, part, schema
from embed.schema import sqlite
from toast import files, pipes, store
from toast.errors import BadInput, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from sqlite3 import Connection

    from toast.command import Call

DISK = {3, 5, 6, 8, 10, 13, 14}  # SQLite's codes for what is no fault of the file: a full disk, no permission, ...


class Build:
    """An index that is being built: `open` gives its database, `finish` makes the file whole.

    path: the file to replace, or None for standard output. update: begin with the file's content. key: names what is
    being built. keep: a later run with the same key can go on with what this one leaves.
    """

    fd = -1  # of the file, while there is one that this run answers for

    def __init__(self, call: Call, path: str | None, *, key: str, update: bool = False, keep: bool = True) -> None:
        self.call, self.update, self.key = call, update, key
        self.path = os.path.realpath(call.path(path)) if path else None
        self.name = path or "standard output"
        mode = os.fstat(call.stdout).st_mode
        # nobody can go on for a pipe: the next run's is another one
        self.keep = keep and bool(path or not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)))
        self.db: Connection = schema.connect("")  # until it is open
        self.resumed = self.finishing = self.waited = False
        self.before = 0

    @property
    def base(self) -> str:
        """What is to blame where the database is damaged: what it began with, if anything."""
        return self.name if self.update or self.resumed else ""

    @contextmanager
    def disk(self, *, reading: str = "") -> Iterator[None]:
        """What cannot be written, in one line; not what is the fault of an index that it is read from."""
        try:
            yield
        except sqlite.Error as error:
            if (reading or self.base) and getattr(error, "sqlite_errorcode", 0) & 255 not in DISK:
                raise
            kept = self.keep and self._is_worth_keeping()
            hint = "what is done is kept: run it again" if kept else "see to the disk and run it again"
            raise BadInput(f"cannot write {self.told}: {error}", hint) from error

    # ---- beginning

    def open(self) -> Connection:
        """The database, new or what a killed run left of it."""
        folder = os.path.dirname(self.path) if self.path else self._folder()
        self.told = self.name if self.path else f"in {folder}"
        self.target = self.path or os.path.join(folder, str(os.geteuid()))  # where drafts are
        self.part, self.resumed = part.beside(self.path or os.path.join(folder, self.key)), False
        try:
            files.tidy(self.target)
            if not (self.keep and self._open_part()):
                self._open_passing()
        except OSError as error:
            told = os_error(error, f"write {self.told}")
            raise told if self.path else BadInput(told.message, "TMPDIR=FOLDER names another folder") from None
        self.db.set_progress_handler(None, 0)  # its pages are a tree: to build on them may take its time
        self.before = self.db.total_changes
        return self.db

    def _folder(self) -> str:
        """Of an index for standard output: of the store, else $TMPDIR, where it is not kept."""
        folder = os.path.join(store.home(self.call), "index")
        try:
            os.makedirs(folder, 0o700, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                part.prune(folder)
                return folder
        except OSError:
            pass
        self.keep = False
        return files.temporary(self.call)

    def _open_part(self) -> bool:
        """Whether there is a part to work on: one that was left or a new one. False where its name is not to be had."""
        while True:
            try:
                fd = part.hold(self.part, self._wait)
            except FileExistsError:
                self.keep = False
                return False
            stamp = self.key + self._base()
            if fd is not None:
                if self._resume(fd, stamp):
                    return True
                part.drop(self.part, fd)
            with files.Draft(self.part, self._mode()) as draft:
                self._begin(draft.fd)
                try:
                    draft.add()
                except FileExistsError:
                    continue  # another run was faster
                self.fd = draft.release()
            part.drop_journal(self.part)
            self._start(stamp)
            return True

    def _open_passing(self) -> None:
        """A file that no later run goes on with; for standard output one without a name."""
        with files.Draft(self.target, self._mode(), named=True) as draft:
            self.part = draft.name
            self._begin(draft.fd)
            draft.name = ""  # it is this run's to take away
            self.fd = draft.release()
        self._start(self.key + self._base(), journal="OFF")  # it leaves its mark: the same bytes by both ways
        if not self.path:
            files.remove(self.fd, self.part)

    def _wait(self) -> None:
        if not self.waited:
            self.call.warn(f"waiting for another run that writes {self.name}")
        self.waited = True

    def _mode(self) -> int:
        return 0o666 if self.path else 0o600

    def _base(self) -> str:
        """What tells the file that an update begins with from another version of it."""
        if not (self.update and self.path):
            return ""
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise os_error(error, f"open {self.name}") from None
        return f"-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"

    def _resume(self, fd: int, stamp: str) -> bool:
        """Whether a part is what a run with this stamp left, and whole."""
        try:
            db = schema.connect_to_build(self.part)
        except sqlite.Error:
            return False
        try:
            made = database.meta(schema.check(db))
            same = made.get("stamp") == stamp and schema.version_of(db) == schema.CURRENT
            if same:
                database.expect_sound(db, words=True)
                self.call.info(f"going on with what is in {self.part}")
                self.db, self.fd, self.resumed = db, fd, True
                return True
        except schema.DAMAGE:
            pass
        db.close()
        return False

    def _begin(self, fd: int) -> None:
        """Write what the database begins with."""
        if not (self.update and self.path):
            files.write(fd, part.blank())
        else:
            base = files.open_regular(self.path)
            try:
                schema.expect_index(schema.head_of(base, self.name), self.name)
                for chunk in schema.copy_chunks(base):
                    files.write(fd, chunk)
            finally:
                os.close(base)
            checksum.cut(fd)
        if self.path:
            files.keep_mode(fd, self.path, 0o600)

    def _start(self, stamp: str, *, journal: str = "DELETE") -> None:
        self.db = schema.connect_to_build(self.part, journal=journal)
        if self.update:
            schema.upgrade(schema.check(self.db), database.UPGRADES)
        else:
            schema.create(self.db)
        database.set_meta(self.db, stamp=stamp)

    # ---- ending

    def finish(self) -> None:
        """Close the database, seal it and put it where it belongs."""
        stamp, self.finishing = database.meta(self.db).get("stamp"), True
        try:
            database.set_meta(self.db, stamp=None)
            self.db.close()
            checksum.seal(self.call, self.fd, self.told)
            if self.path:
                files.keep_mode(self.fd, self.path)
                files.place(self.fd, self.part, self.path)
                files.sync(os.path.dirname(self.path))
            else:
                self._copy_out()
        except BrokenPipeError:  # the reader has what it wanted
            files.remove(self.fd, self.part)
            raise
        except BaseException:  # a full disk, a signal: the next run shall only have to copy
            self._unseal(stamp)
            raise
        self._close()

    def _unseal(self, stamp: str | None) -> None:
        """Make the part one that the next run goes on with, unless it is in its place already."""
        if self.keep and files.has_name(self.fd, self.part):
            self.db.close()
            checksum.cut(self.fd)
            self.db = schema.connect_to_build(self.part)
            database.set_meta(self.db, stamp=stamp)

    def _copy_out(self) -> None:
        for chunk in schema.copy_chunks(self.fd):
            pipes.write_all(self.call.stdout, chunk)
        files.remove(self.fd, self.part)

    def discard(self) -> None:
        """Nothing came of it: no answer, and no part for another run."""
        if self.fd >= 0:
            files.remove(self.fd, self.part)
        self._close()

    def abandon(self) -> None:
        """Leave a part for the next run, if one can go on with it and there is something to go on with."""
        if self.keep and self._is_worth_keeping():
            self._close()
        else:
            self.discard()

    def _close(self) -> None:
        self.db.close()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _is_worth_keeping(self) -> bool:
        """Whether a later run would find something to go on with."""
        return self.resumed or self.finishing or self._has_grown()

    def _has_grown(self) -> bool:
        try:
            return self.db.total_changes > self.before if self.update else database.counts(self.db)[0] > 0
        except sqlite.Error:  # there are no tables yet
            return False
