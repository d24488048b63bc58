"""`index --merge`: indexes made elsewhere, by the same model, to one; nothing is embedded again.

Of a file or of an id that several have, the last one's version is kept. What is there already is not taken again: a
record of the same bytes at the same place, a whole index of the same records. Records of different sources are never
at the same place: those of standard input, which has no name, get that of their index.
"""

from __future__ import annotations

import os
from _blake2 import blake2b
from itertools import count

from embed import database, schema, vectors, words
from embed.build import Build
from embed.context import Context
from embed.index import writing
from embed.schema import transaction
from embed.writer import BATCH
from toast import pipes
from toast.cancel import checkpoint
from toast.errors import BadInput, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from sqlite3 import Connection
    from typing import Any

    from toast.command import Call

    Document = tuple[database.Path, int | None, str | None, bytes | None, str | None]
    Copy = tuple[Document, list[database.Piece], list[vectors.Row]]

SAME = ("digest", "dims", "exact")


def merge(call: Call, paths: list[str], output: str | None) -> None:
    """Join the indexes named by `paths`, one at least, into the file `output` or to standard output."""
    if not paths:
        raise UsageError("--merge joins indexes that are named", "index --merge a.db b.db > c.db")
    if not output:
        pipes.refuse_terminal(call, "index --merge ... > index.db, or -o index.db")
    made = _settings(call, paths)
    build = Build(call, output, key="", keep=False)
    with writing(build):
        db = build.open()
        database.set_meta(db, **made)
        known, again, dropped, replaced = set[bytes](), 0, 0, 0
        for path in paths:
            with schema.opened(call, path) as source:
                database.expect_sound(source)
                if (digest := _digest(source)) in known:
                    again += 1
                    continue
                known.add(digest)
                join = Join(source, db, made["dims"], index=path)
                join.copy(build, database.document_ids(source))
                dropped, replaced = dropped + join.dropped, replaced + join.replaced
        _tell(call, again=again, dropped=dropped, replaced=replaced)
        finish(build, db, made["dims"])


def finish(build: Build, db: Connection, dims: int) -> None:
    """All documents are there: the file is whole."""
    vectors.pack(db, dims)
    words.optimize(db)
    build.finish()


def _settings(call: Call, paths: list[str]) -> dict[str, Any]:
    """The settings of the first, which those of the others must match."""
    first: dict[str, Any] = {}
    for path in paths:
        with schema.opened(call, path) as db:
            made = settings(db)
        first = first or made
        if any(made[key] != first[key] for key in SAME[:2]):
            raise BadInput(
                f"{path} was made with another model than {paths[0]}", f"index it again with -m {first['model']}"
            )
        if made["exact"] != first["exact"]:
            told = [
                f"{name} with{'' if one['exact'] else 'out'} --exact" for name, one in ((path, made), (paths[0], first))
            ]
            raise BadInput(f"{told[0]}, {told[1]}: they have other vectors", "index one of them again")
    return first


def settings(db: Connection) -> dict[str, Any]:
    """What an index made of another one's documents has in common with it."""
    found = database.settings(db)
    return {key: found[key] for key in ("model", "chunk", *SAME)}


def _tell(call: Call, *, again: int, dropped: int, replaced: int) -> None:
    """What was not taken, as it was there, and what had to go."""
    if again:
        call.warn(f"{again} of the indexes {'hold' if again > 1 else 'holds'} what another does, and counted once")
    if dropped:
        call.warn(f"{pipes.plural(dropped, 'document')} that {'were' if dropped > 1 else 'was'} there already")
    if replaced:
        call.warn(f"{pipes.plural(replaced, 'document')} replaced by a later one of the same path or id")


def _digest(db: Connection) -> bytes:
    """The same for indexes of the same documents in the same order."""
    found = blake2b(digest_size=16)
    for row in database.documents_of(db):
        found.update(repr(row).encode("utf-8", "surrogateescape"))
    return found.digest()


class Join:
    """Copies documents with their chunks and vectors from one index to another."""

    def __init__(self, source: Connection, db: Connection, dims: int, *, index: str) -> None:
        self.source, self.db, self.dims = source, db, dims
        self.rows, self.places = vectors.Lookup(source, dims), Places(source, db, index)
        self.dropped = self.replaced = 0  # documents: not taken, as they were there; of another version

    def copy(self, build: Build, ids: list[int]) -> None:
        """Copy these documents into what is built."""
        for start in range(0, len(ids), BATCH):
            checkpoint()
            found = self.read(ids[start : start + BATCH])
            with build.disk(), transaction(self.db):
                self.write(found)

    def read(self, ids: list[int]) -> list[Copy]:
        """These documents, and their chunks with their vectors."""
        found = []
        for id in ids:
            chunks = list(database.chunks_of(self.source, id))
            rows = [self.rows.row(chunk[0]) for chunk in chunks]
            found.append((database.document(self.source, id), [chunk[1:] for chunk in chunks], rows))
        return found

    def write(self, copies: list[Copy]) -> None:
        """Store those that are not there; they replace what the other index has of the same files and ids."""
        rows: list[vectors.Row] = []
        chunks: list[int] = []
        replaced: list[int] = []
        for (path, number, name, hash, data), pieces, own in copies:
            if number is not None and name is None:
                path = self.places.of(path)
            there = self._versions(path, number, name)
            if any(known == hash for _, known in there):
                self.dropped += 1
                continue
            replaced += [id for id, _ in there]
            self.replaced += bool(there)
            new = database.insert_document(self.db, path, number=number, name=name, data=data, hash=hash)
            context = Context(database.named(path), number)
            chunks += [database.insert_chunk(self.db, new, piece, context=context.of(piece[3])) for piece in pieces]
            rows += own
        if chunks:
            vectors.insert(self.db, rows, chunks)
        database.remove_documents(self.db, dict.fromkeys(replaced), self.dims)

    def _versions(self, path: database.Path, number: int | None, name: str | None) -> list[database.Version]:
        if number is None:
            return database.file_versions(self.db, path)
        return (
            database.named_versions(self.db, name) if name is not None else database.records_at(self.db, path, number)
        )


class Places:
    """What the sources of an index's records are called in another index, which may have others of that name."""

    def __init__(self, source: Connection, db: Connection, index: str) -> None:
        self.source, self.db, self.index = source, db, index.removesuffix(".db")
        self.found: dict[database.Path, database.Path] = {}

    def of(self, path: database.Path) -> database.Path:
        if path not in self.found:
            self.found[path] = next(name for name in self._names(path) if not self._is_taken(name, path))
        return self.found[path]

    def _names(self, path: database.Path) -> Iterator[database.Path]:
        first: list[database.Path] = [os.path.basename(self.index), self.index] if path == "-" else [path]
        yield from first
        yield from (f"{database.named(first[-1])}~{i}" for i in count(2))

    def _is_taken(self, name: database.Path, path: database.Path) -> bool:
        """Whether another record stands there where one of ours would."""
        if not database.has_records(self.db, name):
            return False
        ours = ((number, hash) for number, hash in database.records_of(self.source, path))
        return any(known != hash for number, hash in ours for _, known in database.records_at(self.db, name, number))
