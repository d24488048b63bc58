"""What is indexed: files, and records of standard input or of files, one by one.

Knows paths, bytes and fields; nothing of chunks, models or tables.
"""

from __future__ import annotations

import os
import re
from _blake2 import blake2b

from toast import pipes
from toast.errors import BadInput
from toast.records import NOTHING, Records, inside, split, without

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from embed.walk import Walk
    from toast.command import Call
    from toast.records import Record

NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
SURROGATE = re.compile("[\ud800-\udfff]")  # has no UTF-8
LARGEST = 16 << 20  # bytes of a file that is read, unless told otherwise


class Document:
    """A file or a record. number: of the record in its input; name: its id; data: its other fields.

    raw: its bytes as they came. A file that is not there has None for its content.
    """

    __slots__ = ("path", "number", "name", "hash", "data", "content", "id", "size")

    def __init__(
        self,
        path: str,
        content: bytes | str | None,
        *,
        raw: bytes,
        number: int | None = None,
        name: str | None = None,
        data: str | None = None,
    ) -> None:
        self.path, self.number, self.name, self.data = path, number, name, data
        self.content = content  # a file's bytes, a record's text
        self.hash, self.size = blake2b(raw, digest_size=16).digest(), len(raw) + 1
        self.id: int | None = None  # once it is in an index


class Files:
    """The files of a walk. Iterating a second time walks again."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk

    def __iter__(self) -> Iterator[Document]:
        for path, data in self.walk:
            yield Document(path, data, raw=data or b"")


class RecordsOf:
    """The records of standard input or of named files. id: the field that identifies one. first: the number of the
    first one of each input."""

    def __init__(self, inputs: list[tuple[str, Records]], field: str, id: str | None, *, first: int = 1) -> None:
        self.inputs, self.field, self.id, self.first = inputs, field, id, first
        self.kinds: set[bool] = set()  # of the ids that look like numbers: whether they are texts

    def __iter__(self) -> Iterator[Document]:
        for path, records in self.inputs:
            for record in records:
                try:
                    name, data = self._fields(record, f"{path}, line {record.number}")
                except BadInput as error:
                    records.refuse(error)
                    continue
                number = record.number + self.first - 1
                yield Document(path, record.text, raw=record.raw, number=number, name=name, data=data)

    def _fields(self, record: Record, where: str) -> tuple[str | None, str | None]:
        """(its id, its other fields) of a record that came as JSON."""
        if record.data is None:
            return None, None
        name = self._name(record.data, where) if self.id else None
        return name, _json(without(record.data, self.field), where)

    def _name(self, data: dict[str, Any], where: str) -> str:
        """The id as text. 1 and "1" would be the same text: such ids are not taken together."""
        id = inside(data, self.id or "")
        if id is NOTHING:
            raise BadInput(f"{where}: no field {self.id!r}", "--id NAME")
        if type(id) not in (str, int, float) or id == "" or SURROGATE.search(str(id)):
            raise BadInput(f"{where}: field {self.id!r} holds no id", "an id is a text or a number")
        if type(id) is not str or NUMBER.fullmatch(id):
            self.kinds.add(type(id) is str)
        if len(self.kinds) > 1:
            raise BadInput(f"{where}: ids are numbers and numbers as text", '1 and "1" would be one record')
        return str(id)


def _json(data: dict[str, Any], where: str) -> str | None:
    """The JSON text of an object, None of an empty one."""
    import json

    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise BadInput(f"{where}: NaN and Infinity are no JSON", "leave the field out, or null") from None
    # half of a surrogate pair has no UTF-8; its escape is JSON, too
    return text.encode("utf-8", "backslashreplace").decode() if data else None


def source(
    call: Call,
    paths: list[str],
    *,
    files_from: str | None = None,
    largest: int = LARGEST,
    nul: bool = False,
    jsonl: bool = False,
    field: str | None = None,
    id: str | None = None,
    lines: bool = False,
    on_error: str = "stop",
    hidden: bool = False,
    excluded: Sequence[str] = (),
    parquet: bool = False,
    called: str | None = None,
    first: int | None = None,
) -> Files | RecordsOf:
    """What the command line names: files and directories, or records; lines: each line of a file is one.

    parquet: each row of a file is. called: the name of standard input. first: the number of its first record."""
    if files_from:
        told = "standard input" if files_from == "-" else files_from
        listed = split(pipes.read_chunks(call, files_from, told), b"\0" if nul else b"\n")
        paths = [*paths, *(os.fsdecode(name) for some in listed for name in some if name)]
        if any("\0" in name for name in paths):
            raise BadInput(f"{told}: its names end in NUL", "index -0 --files-from ...")
    elif not paths or jsonl or field or lines or parquet:
        read: Callable[..., Records] = Records
        if parquet:
            from toast.parquet import Rows as read  # noqa: N813

            jsonl = False  # --id implies it
        given = {"nul": nul, "jsonl": jsonl, "field": field, "on_error": on_error}
        inputs = [(called or name, read(call, [name] if paths else [], **given)) for name in paths or ["-"]]
        return RecordsOf(inputs, field or "text", id, first=1 if first is None else first)
    from embed.walk import Walk

    return Files(Walk(call, paths, largest=largest, whole=bool(files_from), hidden=hidden, excluded=excluded))
