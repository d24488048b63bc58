"""Documents into an open index, in batches, without embedding the same text twice.

Owns what counts as unchanged, and transactions. Knows nothing of where documents come from, of how
the tables are laid out (`database.py`) or of where the file lies (`target.py`).
"""

import os
from contextlib import contextmanager

from embed import chunk, database

BATCH = 256  # chunks embedded and committed together: what a killed run may lose
SEEN = 64  # chunks after which progress is told
SEGMENT = 8192  # vectors of a full segment


class Known:
    """What the index holds of each document. merging: records are looked up by content, not by place."""

    def __init__(self, db, merging: bool):
        self.db, self.merging = db, merging

    def versions(self, document) -> list:
        """(id, hash) of the documents that this one would take the place of."""
        if document.number is None:
            where, values = "path = ? AND number IS NULL", (database.stored(document.path),)
        elif document.name is not None:
            where, values = "name = ?", (document.name,)
        elif self.merging:
            where, values = "hash = ? AND number IS NOT NULL", (document.hash,)
        else:
            where, values = "path = ? AND number = ?", (database.stored(document.path), document.number)
        return self.db.execute(f"SELECT id, hash FROM documents WHERE {where}", values).fetchall()

    def same(self, document):
        """The id of the same document, complete and unchanged; None when there is none."""
        return next((id for id, hash in self.versions(document) if hash == document.hash), None)


def unchanged(db, source) -> bool:
    """Whether every file is in the index as it is, and no other of the walked folders is."""
    known, seen = Known(db, True), set()
    for document in source:
        id = None if document.content is None else known.same(document)
        if id is None:
            return False
        seen.add(id)
    return not any(id not in seen for id in below(db, source.walk))


def below(db, walk):
    """Ids of the files that a walk would have found."""
    for id, path in db.execute("SELECT id, path FROM documents WHERE number IS NULL"):
        if walk.covers(database.named(path)):
            yield id


class Writer:
    """Puts documents into an index, a batch of chunks in one transaction; mode: how files are cut."""

    def __init__(self, db, embedder, mode: str = "auto", merging: bool = False):
        self.db, self.embedder, self.mode = db, embedder, mode
        self.tick = lambda characters: None  # called as chunks are embedded
        self.known = Known(db, merging)
        self.pending, self.waiting, self.embedded = [], 0, 0
        self._segment = None
        db.execute("CREATE TEMP TABLE seen (id INTEGER PRIMARY KEY)")

    def add(self, document) -> int:
        """Take a document in; what is full is written. How many characters `tick` will be told of."""
        characters = 0
        for piece in self._chunks(document):
            self.pending.append((document, piece))
            self.waiting += 1
            characters += len(piece[2])
            if self.waiting == BATCH:
                self.flush()
        document.content = None
        self.pending.append((document, None))
        if len(self.pending) >= 8 * BATCH:  # documents without a chunk
            self.flush()
        return characters

    def _chunks(self, document):
        if document.number is None:
            text = document.content.decode("utf-8", "replace").removeprefix("\ufeff")
            suffix = os.path.splitext(document.path)[1][1:]
            return chunk.chunk(text, self.embedder.count, self.embedder.limit, self.mode, suffix)
        return chunk.record(document.content, self.embedder.count, self.embedder.limit)

    def flush(self) -> None:
        texts = [piece[2] for _, piece in self.pending if piece]
        hashes = [database.text_hash(text) for text in texts]
        vectors = self._vectors(texts, hashes)
        with transaction(self.db):
            ids, replaced = self._write(iter(hashes))
            if ids:
                database.put_segment(self.db, vectors, ids)
            database.remove_documents(self.db, replaced, self.embedder.dims)
            self._segment = None
        self.pending, self.waiting = [], 0

    def _write(self, hashes):
        """The pending documents and chunks: (ids of the new chunks, ids of the documents they replace)."""
        ids, replaced = [], []
        for document, piece in self.pending:
            if document.id is None:
                document.id = self._insert(document)
            if piece is None:
                replaced += [id for id, _ in self.known.versions(document) if id != document.id]
                self.db.execute("UPDATE documents SET hash = ? WHERE id = ?", (document.hash, document.id))
                self.db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (document.id,))
                continue
            start, end, text = piece
            if document.number is not None:
                start = end = document.number
            ids.append(database.add_chunk(self.db, document.id, start, end, next(hashes), text))
        return ids, dict.fromkeys(replaced)

    def _insert(self, document) -> int:
        values = (database.stored(document.path), document.number, document.name, document.data)
        return self.db.execute("INSERT INTO documents (path, number, name, data) VALUES (?, ?, ?, ?)", values).lastrowid

    # ---- vectors

    def _vectors(self, texts, hashes) -> list:
        """(codes, scale, exact) of each text; a text that the index or this batch has is not embedded."""
        found, new = {}, {}
        for text, hash in zip(texts, hashes):
            if text not in found and text not in new:
                row = self._kept(text, hash)
                if row:
                    found[text] = row
                else:
                    new[text] = None
        self.tick(sum(map(len, texts)) - sum(map(len, new)))
        new = sorted(new, key=len)  # batches are of similar length
        for start in range(0, len(new), SEEN):
            some = new[start : start + SEEN]
            found.update(zip(some, self.embedder.rows(some)))
            self.tick(sum(map(len, some)))
        self.embedded += len(new)
        return [found[text] for text in texts]

    def _kept(self, text, hash):
        for id, same in self.db.execute("SELECT id, text FROM chunks WHERE hash = ?", (hash,)):
            if same == text:
                if not (self._segment and id in self._segment):
                    self._segment = database.segment_of(self.db, id, self.embedder.dims)
                return self._segment.row(self._segment.place(id), self.embedder.dims)
        return None


@contextmanager
def transaction(db):
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def pack(db, dims: int) -> None:
    """Join neighbouring segments until each is about full: a search reads fewer of them."""
    group, rows = [], 0
    sizes = db.execute("SELECT first, length(ids) / 8 FROM segments ORDER BY first").fetchall()
    for first, count in [*sizes, (None, SEGMENT)]:
        if rows + count > SEGMENT:
            if len(group) > 1:
                _join(db, group, dims)
            group, rows = [], 0
        group.append(first)
        rows += count


def _join(db, firsts, dims):
    parts = [database.segment_of(db, first, dims) for first in firsts]
    ids = [id for part in parts for id in part.ids]
    exact = b"".join(part.exact for part in parts) if parts[0].exact is not None else None
    row = b"".join(part.codes for part in parts), b"".join(part.scales for part in parts), exact
    with transaction(db):
        db.execute("DELETE FROM segments WHERE first BETWEEN ? AND ?", (firsts[0], firsts[-1]))
        database.put_segment(db, [row], ids)
