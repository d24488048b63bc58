"""`index --split N`: an index as N smaller ones, each with its part of the documents; `--merge` is the other way.

Nothing is embedded again. A document is in one part, and the parts follow each other.
"""

from __future__ import annotations

import os

from embed import database, schema, vectors, words
from embed.build import Build
from embed.index import writing
from embed.merge import Join, settings
from embed.schema import transaction
from embed.writer import BATCH
from toast.cancel import checkpoint
from toast.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call


def split(call: Call, paths: list[str], output: str | None, *, count: int) -> None:
    """Make OUTPUT-1.db to OUTPUT-N.db of the one index that is named; without OUTPUT its own name is taken."""
    if len(paths) != 1:
        raise UsageError("--split takes one index", "index --split 4 x.db makes x-1.db to x-4.db")
    stem = (output or paths[0]).removesuffix(".db")
    names = [f"{stem}-{part:0{len(str(count))}}.db" for part in range(1, count + 1)]
    for name in names:
        if os.path.lexists(call.path(name)):
            raise UsageError(f"{name} is there already", f"remove {stem}-*.db, or -o another name")
    with schema.opened(call, paths[0]) as source:
        database.expect_sound(source)
        made, ids = settings(source), database.document_ids(source)
        for part, name in enumerate(names):
            own = ids[part * len(ids) // count : (part + 1) * len(ids) // count]
            _write(call, name, Part(paths[0], source, made), ids=own)


class Part:
    """What a part is copied from: the index's name, the open index, its settings."""

    def __init__(self, name: str, source: schema.Database, made: dict) -> None:
        self.name, self.source, self.made = name, source, made


def _write(call: Call, path: str, part: Part, *, ids: list[int]) -> None:
    build = Build(call, path, key="", keep=False)
    with writing(build):
        db = build.open()
        database.set_meta(db, **part.made)
        join = Join(part.source, db, part.made["dims"], index=part.name)
        for start in range(0, len(ids), BATCH):
            checkpoint()
            found = join.read(ids[start : start + BATCH])
            with build.disk(), transaction(db):
                join.write(found)
        vectors.pack(db, part.made["dims"])
        words.optimize(db)
        build.finish()
