"""`index --merge`: indexes made elsewhere, by the same model, to one; nothing is embedded again.

Of a file or of an id that several have, the last one's version is kept.
"""

from __future__ import annotations

from embed import database, schema, vectors, words
from embed.build import Build
from embed.index import writing
from embed.schema import transaction
from embed.writer import BATCH
from toast import pipes
from toast.errors import BadInput, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from sqlite3 import Connection
    from typing import Any

    from toast.command import Call

SAME = ("digest", "dims", "exact")


def merge(call: Call, paths: list[str], output: str | None) -> None:
    """Join the indexes named by `paths`, into the file `output` or to standard output."""
    if len(paths) < 2:
        raise UsageError("--merge joins two indexes or more", "index --merge a.db b.db > c.db")
    if not output:
        pipes.refuse_terminal(call, "index --merge ... > index.db, or -o index.db")
    made = _settings(call, paths)
    build = Build(call, output, key="", keep=False)
    with writing(build):
        db = build.open()
        database.set_meta(db, **made)
        for path in paths:
            with schema.opened(call, path) as source:
                for documents in _batches(source):
                    with build.disk(reading=path), transaction(db):
                        Join(source, db, made["dims"]).documents(documents)
        vectors.pack(db, made["dims"])
        words.optimize(db)
        build.finish()


def _settings(call: Call, paths: list[str]) -> dict[str, Any]:
    """The settings of the first, which those of the others must match."""
    first: dict[str, Any] = {}
    for path in paths:
        with schema.opened(call, path) as db:
            made = {key: database.meta(db)[key] for key in ("model", "chunk", *SAME)}
        first = first or made
        if any(made[key] != first[key] for key in SAME):
            raise BadInput(
                f"{path} was made with another model than {paths[0]}", f"index it again with -m {first['model']}"
            )
    return first


def _batches(db: Connection) -> Iterator[list[int]]:
    ids = database.document_ids(db)
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


class Join:
    """Copies documents with their chunks and vectors from one index to another."""

    def __init__(self, source: Connection, db: Connection, dims: int) -> None:
        self.source, self.db, self.dims = source, db, dims
        self.rows = vectors.Lookup(source, dims)

    def documents(self, ids: list[int]) -> None:
        """Copy these; they replace what the other index has of the same files and ids."""
        rows: list[vectors.Row] = []
        chunks: list[int] = []
        replaced: list[int] = []
        for id in ids:
            path, number, name, hash, data = database.document(self.source, id)
            replaced += self._versions(path, number, name)
            new = database.insert_document(self.db, path, number=number, name=name, data=data, hash=hash)
            for old, start, end, hashed, text in database.chunks_of(self.source, id):
                rows.append(self.rows.row(old))
                chunks.append(database.insert_chunk(self.db, new, (start, end, hashed, text)))
        if chunks:
            vectors.insert(self.db, rows, chunks)
        database.remove_documents(self.db, dict.fromkeys(replaced), self.dims)

    def _versions(self, path: str | bytes, number: int | None, name: str | None) -> list[int]:
        if number is None:
            found = database.file_versions(self.db, path)
        elif name is not None:
            found = database.named_versions(self.db, name)
        else:
            return []
        return [id for id, _ in found]
