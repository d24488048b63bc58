"""`index --merge`: indexes made elsewhere, by the same model, to one; nothing is embedded again.

Of a file or of an id that several have, the last one's version is kept.
"""

from __future__ import annotations

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
                database.expect_sound(source)
                join = Join(source, db, made["dims"])
                for ids in _batches(source):
                    checkpoint()
                    found = join.read(ids)
                    with build.disk(), transaction(db):
                        join.write(found)
        vectors.pack(db, made["dims"])
        words.optimize(db)
        build.finish()


def _settings(call: Call, paths: list[str]) -> dict[str, Any]:
    """The settings of the first, which those of the others must match."""
    first: dict[str, Any] = {}
    for path in paths:
        with schema.opened(call, path) as db:
            found = database.settings(db)
            made = {key: found[key] for key in ("model", "chunk", *SAME)}
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

    def read(self, ids: list[int]) -> list[Copy]:
        """These documents, and their chunks with their vectors."""
        found = []
        for id in ids:
            chunks = list(database.chunks_of(self.source, id))
            rows = [self.rows.row(chunk[0]) for chunk in chunks]
            found.append((database.document(self.source, id), [chunk[1:] for chunk in chunks], rows))
        return found

    def write(self, copies: list[Copy]) -> None:
        """Store them; they replace what the other index has of the same files and ids."""
        rows: list[vectors.Row] = []
        chunks: list[int] = []
        replaced: list[int] = []
        for (path, number, name, hash, data), pieces, own in copies:
            replaced += self._versions(path, number, name)
            new = database.insert_document(self.db, path, number=number, name=name, data=data, hash=hash)
            context = Context(database.named(path), number)
            chunks += [database.insert_chunk(self.db, new, piece, context=context.of(piece[3])) for piece in pieces]
            rows += own
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
