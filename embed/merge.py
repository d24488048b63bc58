"""`index --merge`: indexes made elsewhere, by the same model, to one; nothing is embedded again.

Of a file or of an id that several have, the last one's version is kept.
"""

import os
from contextlib import contextmanager

from embed import database
from embed.build import Target
from embed.index import disk, key_of
from embed.writer import BATCH, pack, transaction
from toast import pipes
from toast.errors import BadInput, UsageError

SAME = ("digest", "dims", "exact")


def merge(call, paths, output) -> None:
    """Join the indexes named by `paths`, into the file `output` or to standard output."""
    if len(paths) < 2:
        raise UsageError("--merge joins two indexes or more", "index --merge a.db b.db > c.db")
    if not output:
        pipes.refuse_terminal(call, "index --merge ... > index.db, or -o index.db")
    made = _settings(call, paths)
    target = Target(call, output, False, key_of(call, {"merge": ""}, paths, output))
    try:
        with disk(target):
            db = target.open(anew=True)
            database.set_meta(db, **made)
        for path in paths:
            with opened(call, path) as source:
                for documents in _batches(source):
                    with disk(target), transaction(db):
                        Join(source, db, made["dims"]).documents(documents)
        with disk(target):
            pack(db, made["dims"])
            db.execute("INSERT INTO words (words) VALUES ('optimize')")
            target.finish()
    except BaseException:
        target.abandon()
        raise


@contextmanager
def opened(call, path):
    fd = database.open_file(call, path)
    try:
        with database.damage(path):
            yield database.open_fd(call, fd, path)
    finally:
        os.close(fd)


def _settings(call, paths) -> dict:
    """The settings of the first, which those of the others must match."""
    first = None
    for path in paths:
        with opened(call, path) as db:
            made = {key: database.meta(db)[key] for key in ("model", "chunk", *SAME)}
        first = first or made
        if any(made[key] != first[key] for key in SAME):
            raise BadInput(
                f"{path} was made with another model than {paths[0]}", f"index it again with -m {first['model']}"
            )
    return first


def _batches(db):
    ids = [id for (id,) in db.execute("SELECT id FROM documents ORDER BY id")]
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


class Join:
    """Copies documents with their chunks and vectors from one index to another."""

    def __init__(self, source, db, dims):
        self.source, self.db, self.dims, self.segment = source, db, dims, None

    def documents(self, ids) -> None:
        rows, chunks, replaced = [], [], []
        for id in ids:
            row = self.source.execute(
                "SELECT path, number, name, hash, data FROM documents WHERE id = ?", (id,)
            ).fetchone()
            replaced += self._versions(*row[:3])
            new = self.db.execute(
                "INSERT INTO documents (path, number, name, hash, data) VALUES (?, ?, ?, ?, ?)", row
            ).lastrowid
            for old, *piece in self.source.execute(
                "SELECT id, start_line, end_line, hash, text FROM chunks WHERE document = ? ORDER BY id", (id,)
            ):
                rows.append(self._vector(old))
                chunks.append(database.add_chunk(self.db, new, *piece))
        if chunks:
            database.put_segment(self.db, rows, chunks)
        database.remove_documents(self.db, dict.fromkeys(replaced), self.dims)

    def _versions(self, path, number, name) -> list:
        if number is None:
            found = self.db.execute("SELECT id FROM documents WHERE path = ? AND number IS NULL", (path,))
        elif name is not None:
            found = self.db.execute("SELECT id FROM documents WHERE name = ?", (name,))
        else:
            return []
        return [id for (id,) in found]

    def _vector(self, chunk):
        if not (self.segment and chunk in self.segment):
            self.segment = database.segment_of(self.source, chunk, self.dims)
        return self.segment.row(self.segment.place(chunk), self.dims)
