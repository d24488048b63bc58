"""`index --split N`: an index as N smaller ones, each with its part of the documents; `--merge` is the other way.

Nothing is embedded again. A document is in one part, and the parts follow each other.
"""

from __future__ import annotations

import os

from embed import database, schema
from embed.build import Build
from embed.index import writing
from embed.merge import Join, finish, settings
from toast import files
from toast.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from embed.schema import Database
    from toast.command import Call


def split(call: Call, paths: list[str], output: str | None, *, count: int) -> None:
    """Make OUTPUT-1.db to OUTPUT-N.db of the one index that is named; without OUTPUT its own name is taken."""
    if len(paths) != 1:
        raise UsageError("--split takes one index", "index --split 4 x.db makes x-1.db to x-4.db")
    stem = (output or paths[0]).removesuffix(".db")
    names = [f"{stem}-{part:0{len(str(count))}}.db" for part in range(1, count + 1)]
    for name in names:
        if os.path.lexists(call.path(name)):
            raise UsageError(f"{name} is there already", "-o another name")
        files.check_output(call, name)
    with schema.opened(call, paths[0]) as source:
        database.expect_sound(source)
        made, ids = settings(source), database.document_ids(source)
        for part, name in enumerate(names):
            own = ids[part * len(ids) // count : (part + 1) * len(ids) // count]
            _write(call, name, source, index=paths[0], made=made, ids=own)


def _write(call: Call, path: str, source: Database, *, index: str, made: dict[str, Any], ids: list[int]) -> None:
    build = Build(call, path, key="", keep=False)
    with writing(build):
        db = build.open()
        database.set_meta(db, **made)
        Join(source, db, made["dims"], index=index).copy(build, ids)
        finish(build, db, made["dims"])
