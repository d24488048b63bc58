"""Where `search` looks: indexes and texts that are named, standard input, or the nearest index upwards.

Knows how to tell an index from a text, and makes an index of texts that have none; nothing of queries.
"""

from __future__ import annotations

import os
import stat

from embed import database, model, schema
from toast import files, kernels, pipes
from toast.errors import BadInput, UsageError
from toast.records import Records, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from embed.schema import Database
    from toast.command import Call

    Named = tuple[Database, str]  # an open index, and what a message calls it

NEAREST = ".index.db"
MANY = 4  # files
STDIN = "standard input"


class Inputs:
    """What is searched: `open` gives the indexes. indexes: what must be none but one; lines: of files each line is a
    record, as of standard input. query: what may have been meant as a file."""

    here = folder = ""  # the working directory, and where the nearest index is, if it is that

    def __init__(
        self, indexes: list[str], files: list[str], *,
        nul: bool = False, jsonl: bool = False, field: str | None = None, on_error: str = "stop", lines: bool = False,
        query: str = "",
    ) -> None:  # fmt: skip
        self.query, self.on_error = query, on_error
        self.indexes, self.names = indexes, [*indexes, *files]
        self.nul, self.jsonl, self.field, self.lines = nul, jsonl, field, lines

    def shown(self, path: str) -> str:
        """A path of an index as it is told: of the nearest one relative to here, as that is not where it was made."""
        here, folder = self.here, self.folder
        if here == folder or path == "-" or os.path.isabs(path):
            return path
        return os.path.relpath(os.path.join(folder, path), here)

    def open(self, call: Call, *, name: str | None, lexical: bool) -> list[Named]:
        """Every index, in order. name: of the model for texts without one; lexical: they need no vectors."""
        if "-" in self.names:
            if len(self.names) > 1:
                raise UsageError("- goes alone", "search QUERY FILE... < /dev/null, or search QUERY < FILE")
            found = self._standard_input(call, name=name, lexical=lexical)
            if not found:
                raise BadInput("nothing to search: standard input is no file and no pipe")
            return [found]
        if self.names:
            return list(self._named(call, name=name, lexical=lexical))
        return [self._standard_input(call, name=name, lexical=lexical) or self._nearest(call)]

    def _named(self, call: Call, *, name: str | None, lexical: bool) -> Iterator[Named]:
        texts: list[str] = []
        first = None
        files.allow_open(4 * len(self.names))
        if len(self.names) >= MANY:
            kernels.install_for(call, tell=False)  # they check files sooner, which does not pay for few
        for path in self.names:
            fd = schema.open_file(call, path)
            if path not in self.indexes and _is_text(fd, path):
                os.close(fd)
                texts.append(path)
                continue
            found = _opened(call, fd, path)
            first = first or found
            yield found
        if texts:
            yield self._texts(call, texts, name=name, lexical=lexical, beside=first)

    def _standard_input(self, call: Call, *, name: str | None, lexical: bool) -> Named | None:
        """Its index, or one of its text; None when nothing was put there, or it must not be read."""
        if call.no_input or not pipes.is_fed(call.stdin):
            return None
        if stat.S_ISREG(os.fstat(call.stdin).st_mode):
            head = schema.head_of(call.stdin, STDIN)
            if not head:
                call.warn("standard input is an empty file, and no index")
            if schema.kind(head) != "text":
                return schema.open_fd(call, call.stdin, STDIN), STDIN
        else:
            first = pipes.read_some(call.stdin)
            if not first and not self.names and self._nearest_path(call):
                return None  # what cron and ssh put there
            while first and len(first) < schema.HEADER and (more := pipes.read_some(call.stdin)):
                first += more
            if schema.kind(first) != "text":
                return schema.open_spooled(call, _rest(call.stdin, first), STDIN), STDIN
            if _names_files(call, first):
                call.warn("standard input is searched, and has names of files (theirs: xargs -d '\\n' search QUERY)")
            call.kept[""] = files.spool(call, _rest(call.stdin, first))  # no path is called so
            call = call.but(stdin=call.kept[""])
        return self._texts(call, self.names, name=name, lexical=lexical)

    def _nearest(self, call: Call) -> Named:
        path = self._nearest_path(call)
        if not path:
            from toast import operands

            told = f"nothing to search: no input, and no {NEAREST} here or above"
            meant = self.query and os.path.exists(call.path(self.query))
            raise BadInput(told, f'search "..." {operands.shown(self.query)}' if meant else f"run: index . > {NEAREST}")
        self.here, self.folder = pipes.path_of(call.cwd), os.path.dirname(path)
        return _opened(call, schema.open_file(call, path), path)

    def _nearest_path(self, call: Call) -> str:
        """Where the nearest index is, here or above; "" where there is none."""
        folder = pipes.path_of(call.cwd)
        while not os.path.isfile(path := os.path.join(folder, NEAREST)):
            if folder == os.path.dirname(folder):
                return ""
            folder = os.path.dirname(folder)
        return path

    def _texts(
        self, call: Call, paths: list[str], *, name: str | None, lexical: bool, beside: Named | None = None
    ) -> Named:
        """An index, private and passing, of texts that have none; by the model of the index `beside` it."""
        from embed import documents, index, writer

        source = documents.source(
            call, paths, nul=self.nul, jsonl=self.jsonl, field=self.field, lines=self.lines or "-" in paths,
            on_error=self.on_error,
        )  # fmt: skip
        made = {"model": model.chosen(call, name), "digest": ""}
        if beside:
            with schema.damage(beside[1], beside[0]):
                meta = database.settings(beside[0])
                made = {"model": name or meta["model"], "digest": meta["digest"]}
        embedder = model.NoEmbedder() if lexical else model.Embedder(call, made["model"])
        db = schema.connect("")  # SQLite unlinks its file as soon as it is open
        try:
            schema.create(db)
            database.set_meta(db, dims=embedder.dims, exact=0, **made)
            filled = writer.Writer(db, embedder)
            index.fill(call, filled, source)
        except schema.sqlite.Error as error:
            raise files.no_room(error) from error
        index.tell_skipped(call, source, filled)
        return db, "the text"


def _opened(call: Call, fd: int, name: str) -> Named:
    """The index behind a descriptor, which is closed: the connection has its own."""
    try:
        return schema.open_fd(call, fd, name), name
    finally:
        os.close(fd)


def _is_text(fd: int, name: str) -> bool:
    """Whether it is no index; nor what was left of making one, an empty file of such a name."""
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        return True
    head = schema.head_of(fd, name)
    return schema.kind(head) == "text" and bool(head or not name.endswith(".db"))


def _names_files(call: Call, head: bytes) -> bool:
    """Whether the first lines of a text are files that are here, as find prints them."""
    names = [os.fsdecode(line) for line in head.split(b"\n", 3)[:3] if line]
    return bool(names) and all(os.path.isfile(call.path(name)) for name in names)


def _rest(fd: int, first: bytes) -> Iterator[bytes]:
    yield first
    while chunk := pipes.read_some(fd):
        yield chunk


def listed(call: Call, names: list[str]) -> list[str]:
    """The names, with those that a file has, one a line, in the place of @FILE."""
    found: list[str] = []
    for name in names:
        if name.startswith("@") and len(name) > 1:
            chunks = pipes.read_chunks(call, name[1:], name[1:])
            lines = [line.removesuffix(b"\r") for some in split(chunks, b"\n") for line in some]
            if not any(lines):
                raise BadInput(f"{name[1:]} lists no files", "a name on each line")
            found += map(os.fsdecode, filter(None, lines))
        else:
            found.append(name)
    return found


def read_queries(call: Call, name: str) -> list[str]:
    """The queries of a file: a line each, or JSON objects with a `text`."""
    import json

    queries = []
    for record in Records(call, [name]):
        text = record.text
        if text.startswith("{"):
            try:
                text = json.loads(text)["text"]
            except (ValueError, KeyError, TypeError, RecursionError):
                pass
        queries.append(text if isinstance(text, str) else record.text)
    return queries
