"""Documents into an open index, in batches, without embedding the same text twice.

Owns what counts as unchanged, and what is written together. Knows nothing of where documents come from, of
how rows are stored (`database.py`) or of where the file lies (`build.py`).
"""

from __future__ import annotations

import os
from itertools import islice

from embed import chunk, database, formats, vectors
from embed.context import Context
from embed.formats import code
from embed.formats.generated import is_generated
from embed.schema import transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from sqlite3 import Connection

    from embed.documents import Document, Files
    from embed.model import Embedder, NoEmbedder
    from embed.walk import Walk

    Piece = tuple[int, int, str]  # first and last line, text

BATCH = 256  # chunks embedded and committed together: what a killed run may lose
FEW = 4  # chunks of a generated file
UNREADABLE, LATIN, GENERATED, LINES = "unreadable", "latin", "generated", "lines"
SEEN = 64  # chunks after which progress is told


class Known:
    """What the index holds of each document. update: match records by content hash, not by (path, line number)."""

    def __init__(self, db: Connection, *, update: bool) -> None:
        self.db, self.update = db, update

    def versions(self, document: Document) -> list[tuple[int, bytes | None]]:
        """(id, hash) of the documents that this one would take the place of."""
        path = database.stored(document.path)
        if document.number is None:
            return database.file_versions(self.db, path)
        if document.name is not None:
            return database.named_versions(self.db, document.name)
        if self.update:
            return database.equal_records(self.db, document.hash)
        return database.records_at(self.db, path, document.number)

    def same(self, document: Document) -> int | None:
        """The id of the same document, complete and unchanged; None when there is none."""
        return next((id for id, hash in self.versions(document) if hash == document.hash), None)


def unchanged(db: Connection, source: Files) -> bool:
    """Whether every file is in the index as it is, and no other of the walked folders is."""
    known, seen = Known(db, update=True), set()
    for document in source:
        id = None if document.content is None else known.same(document)
        if id is None:
            return False
        seen.add(id)
    return not any(id not in seen for id in below(db, source.walk))


def below(db: Connection, walk: Walk) -> Iterator[int]:
    """Ids of the files that a walk would have found."""
    return (id for id, path in database.files(db) if walk.covers(path))


class Writer:
    """Puts documents into an index, a batch of chunks in one transaction.

    mode: how files are cut. update: as of Known.
    """

    def __init__(
        self, db: Connection, embedder: Embedder | NoEmbedder, *, mode: str = "auto", update: bool = False
    ) -> None:
        self.db, self.embedder, self.mode = db, embedder, mode
        self.tick: Callable[[int], object] = lambda characters: None  # called as chunks are embedded
        self.known = Known(db, update=update)
        self.pending: list[tuple[Document, Piece | None]] = []  # no piece: the document's end
        self.waiting = self.embedded = 0
        self.notes: list[tuple[str, str, str]] = []  # (kind, path, what) of files that are not as others
        self.rows = vectors.Lookup(db, embedder.dims)
        self.context = Context("-")  # of the document that is being written
        database.track_seen(db)

    def add(self, document: Document) -> int:
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

    def _chunks(self, document: Document) -> Iterable[Piece]:
        count, limit = self.embedder.count, self.embedder.limit
        if isinstance(document.content, bytes):
            return self._of_file(document.path, document.content)
        return chunk.record(document.content or "", count, limit)

    def _of_file(self, path: str, data: bytes) -> Iterable[Piece]:
        """What the chunks of a file are; of what a program wrote for programs the first few."""
        try:
            found = formats.read(path, data)
        except formats.Unreadable as error:
            self.notes.append((UNREADABLE, path, str(error)))
            return ()
        count, limit, text = self.embedder.count, self.embedder.limit, found.text
        if found.latin:
            self.notes.append((LATIN, path, "not UTF-8"))
        if generated := is_generated(os.path.basename(path), text):
            self.notes.append((GENERATED, path, "generated or minified, its beginning is indexed"))
            text = text[: 8 * FEW * limit]
        known = found.joints
        if not generated and code.is_known(found.suffix) and self.mode == "auto":
            if sections := code.sections(text, found.suffix):
                known = code.joints(text, sections)
            elif not code.is_there(found.suffix):
                self.notes.append((LINES, path, "code, cut by its lines (pip install 'toast-filters[code]')"))
        chunks = chunk.chunk(text, count, limit, mode=self.mode, suffix=found.suffix, known=known)
        return islice(chunks, FEW) if generated else chunks

    def flush(self) -> None:
        """Embed and write what is pending."""
        texts = [piece[2] for _, piece in self.pending if piece]
        hashes = [database.text_hash(text) for text in texts]
        rows = self._rows(texts, hashes)
        with transaction(self.db):
            ids, replaced = self._write(iter(hashes))
            if ids:
                vectors.insert(self.db, rows, ids)
            database.remove_documents(self.db, replaced, self.embedder.dims)
            self.rows.forget()
        self.pending, self.waiting = [], 0

    def _write(self, hashes: Iterator[int]) -> tuple[list[int], Iterable[int]]:
        """The pending documents and chunks: (ids of the new chunks, ids of the documents they replace)."""
        ids: list[int] = []
        replaced: list[int] = []
        for document, piece in self.pending:
            if document.id is None:
                document.id = self._insert(document)
                self.context = Context(document.path, document.number)
            if piece is None:
                replaced += [id for id, _ in self.known.versions(document) if id != document.id]
                database.complete(self.db, document.id, document.hash)
                database.mark_seen(self.db, document.id)
                continue
            start, end, text = piece
            if document.number is not None:
                start = end = document.number
            row = (start, end, next(hashes), text)
            ids.append(database.insert_chunk(self.db, document.id, row, context=self.context.of(text)))
        return ids, dict.fromkeys(replaced)

    def _insert(self, document: Document) -> int:
        path = database.stored(document.path)
        return database.insert_document(self.db, path, number=document.number, name=document.name, data=document.data)

    # ---- vectors

    def _rows(self, texts: list[str], hashes: list[int]) -> list[vectors.Row]:
        """(codes, scale, exact) of each text; a text that the index or this batch has is not embedded."""
        found: dict[str, vectors.Row] = {}
        new: dict[str, None] = {}
        for text, hash in zip(texts, hashes, strict=True):
            if text not in found and text not in new:
                row = self._kept(text, hash)
                if row:
                    found[text] = row
                else:
                    new[text] = None
        self.tick(sum(map(len, texts)) - sum(map(len, new)))
        ordered = sorted(new, key=len)  # batches are of similar length
        for start in range(0, len(ordered), SEEN):
            some = ordered[start : start + SEEN]
            found.update(zip(some, self.embedder.rows(some), strict=True))
            self.tick(sum(map(len, some)))
        self.embedded += len(ordered)
        return [found[text] for text in texts]

    def _kept(self, text: str, hash: int) -> vectors.Row | None:
        """The row of a chunk with this text, if the index has one."""
        id = next((id for id, same in database.chunks_with_hash(self.db, hash) if same == text), None)
        return None if id is None else self.rows.row(id)
