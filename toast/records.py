"""Records: what a file or standard input holds, line by line, NUL by NUL or as JSON objects.

Owns what a record is and what is wrong with it; raw bytes are kept, decoding serves the model only. Knows no
descriptors (`pipes.py`) and no models.
"""

from __future__ import annotations

from toast import pipes
from toast.errors import BadInput, BadText

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from toast.command import Call

    Data = dict[str, Any]  # a record's JSON object


FIRST_LINES = 8  # lines that tell whether all are JSON
BOM = b"\xef\xbb\xbf"
NOTHING = object()  # what is under a name that an object does not have; null is something


class Record:
    """One record: its bytes as they came, its text, its object when it came as JSON, its line, and how many records,
    bad ones included, were before it.

    error: what is wrong with it, where Records was told to go on (`soft`). where: what a message calls it."""

    __slots__ = ("raw", "text", "data", "number", "index", "error", "records", "file")

    def __init__(
        self, raw: bytes, text: str, data: Data | None = None, *, number: int = 0, error: BadInput | None = None
    ) -> None:
        self.raw, self.text, self.data, self.number, self.error = raw, text, data, number, error
        self.index = 0
        self.records: Records | None = None
        self.file = ""

    @property
    def where(self) -> str:
        return self.records.where(self.file, self.number) if self.records else f"record {self.index + 1}"


class Records:
    """The records of the named files, or of standard input when none is named.

    Iterating gives records; `windows()` gives lists of them: at most pipes.WINDOW, and from a pipe what
    it has to give at the moment, so that a slow writer's records are answered as they come.
    files: None for a command that takes none. jsonl: None where lines may be objects and nobody need be told.
    soft: a bad record is given with its error, not raised.
    on_error: what else becomes of one: with `stop` it ends the command; with `skip` it is told, left out, and the
    status will be 2; with `warn` it is told and left out.
    source: a name that goes into each record's object. start: the number of the first one.
    """

    def __init__(
        self, call: Call, files: Sequence[str] | None = (), *,
        nul: bool = False, jsonl: bool | None = None, field: str | None = None, soft: bool = False,
        on_error: str = "stop", source: str | None = None, start: int | None = None,
    ) -> None:  # fmt: skip
        self.call, self.nul, self.on_error, self.source = call, nul, on_error, source
        self.first = self.count = start or 0
        self.jsonl, self.field, self.soft = bool(jsonl) or field is not None, field or "text", soft
        self.told = jsonl is None or self.jsonl or "-" in (files or ())  # of objects that are read as lines
        self.takes_files = files is not None
        self.busy: Callable[[], bool] = lambda: False
        self.files = list(files or ()) or ([] if call.no_input else ["-"])
        self.invalid = 0
        for name in self.files:
            pipes.check_input(call, name, asked_for=bool(files), takes_files=self.takes_files)

    def __iter__(self) -> Iterator[Record]:
        for window in self.windows():
            yield from window

    def arriving(self, busy: Callable[[], bool]) -> Iterator[Record | None]:
        """The records, and None instead of waiting for one while busy() says there is other work."""
        self.busy = busy
        for window in self.windows():
            if window:
                yield from window
            elif busy():
                yield None

    def windows(self) -> Iterator[list[Record]]:
        for name in self.files:
            yield from self._file(name)
        if self.invalid:
            self.call.warn(f"{pipes.plural(self.invalid, 'record')} held invalid UTF-8, read as U+FFFD")

    @property
    def empty(self) -> bool:
        """Whether no record has come, not even a bad one."""
        return self.count == self.first

    def number(self, record: Record, name: str) -> None:
        """It is the next one, of this file and of this source."""
        record.index, self.count = self.count, self.count + 1
        record.records, record.file = self, name
        if self.source is not None:
            record.data = {**(record.data or {}), "source": self.source}

    def refuse(self, error: BadInput) -> None:
        """A record cannot be used: it is left out, or it ends the command."""
        if self.on_error == "stop":
            raise error
        (self.call.error if self.on_error == "skip" else self.call.warn)(str(error))

    def answered(self, window: list[Record], answer: Callable[[list[str]], Any]) -> tuple[list[Record], Any]:
        """(records, what `answer` gives of their texts): those with a text that it cannot use (BadText) are refused."""
        while window:
            try:
                return window, answer([record.text for record in window])
            except BadText as error:
                bad = set(error.at)
                for i in error.at:
                    self.refuse(error.of(window[i].where))
                window = [record for i, record in enumerate(window) if i not in bad]
        return [], []

    def where(self, name: str, number: int | None = None) -> str:
        """What a message calls a file, or a record of it."""
        what = (self.source or "standard input") if name == "-" else name
        return what if number is None else f"{what}, {'record' if self.nul else 'line'} {number}"

    def _file(self, name: str) -> Iterator[list[Record]]:
        number, head = 0, list[bytes]()
        for raws in split(
            pipes.read_chunks(self.call, name, self.where(name), busy=lambda: self.busy()), b"\0" if self.nul else b"\n"
        ):
            if not self.told and len(head) < FIRST_LINES:
                head += raws[: FIRST_LINES - len(head)]
                self._tell_objects(name, head * (len(head) == FIRST_LINES))
            for start in range(0, len(raws) or 1, pipes.WINDOW):
                part = raws[start : start + pipes.WINDOW]
                window, bad = self._window(part, name, number)
                number += len(part)
                yield window
                if bad:
                    raise bad
        if not self.told and len(head) < FIRST_LINES:
            self._tell_objects(name, head)

    def _tell_objects(self, name: str, raws: list[bytes]) -> None:
        """Tell, once, where the first lines of a file are JSON objects that nobody asked to be read as such."""
        raws = [raw.removeprefix(BOM) for raw in raws[:1]] + raws[1:]
        if not raws or not all(raw.startswith(b"{") for raw in raws):
            return
        import json

        try:
            first, *_ = map(json.loads, raws)
        except (ValueError, RecursionError):
            return
        self.told = True
        told = f"{self.where(name)} holds JSON objects, which are read as plain lines"
        hint = "; - says that lines are meant" if name == "-" and self.takes_files else ""
        self.call.warn(f"{told} (--field NAME; the first has {', '.join(list(first)[:8]) or 'no fields'}{hint})")

    def _window(self, raws: list[bytes], name: str, number: int) -> tuple[list[Record], BadInput | None]:
        """The records before the first bad one, and what is wrong with that."""
        window = []
        try:
            for i, raw in enumerate(raws, number + 1):
                try:
                    record = self._record(raw, name, i)
                except BadInput as error:
                    self.refuse(error)
                    self.count += 1
                    continue
                if record:
                    self.number(record, name)
                    window.append(record)
        except BadInput as error:
            return window, error
        return window, None

    def _record(self, raw: bytes, name: str, number: int) -> Record | None:
        if self.jsonl:
            return self._object(raw, self.where(name, number), number) if raw.strip() else None
        text = self._decode(raw[:-1] if raw.endswith(b"\r") and not self.nul else raw)
        return Record(raw, text.removeprefix("\ufeff") if number == 1 else text, number=number)

    def _object(self, raw: bytes, where: str, number: int) -> Record:
        try:
            return self._json(raw, where, number)
        except BadInput as error:
            if not self.soft:
                raise
            return Record(raw, "", number=number, error=error)

    def _json(self, raw: bytes, where: str, number: int) -> Record:
        data = self._parsed(raw, where)
        if not isinstance(data, dict):
            unit = "ends in NUL, one" if self.nul else "is one line"
            raise BadInput(f"{where}: not a JSON object", f'a record {unit} like {{"text": "..."}}')
        text = inside(data, self.field)
        if isinstance(text, str):
            return Record(raw, text.encode("utf-8", "replace").decode(), data, number=number)
        if text is not NOTHING:
            raise BadInput(f"{where}: field {self.field!r} holds no text", "a text is a JSON string")
        fields = ", ".join(list(data)[:8]) or "no fields"
        raise BadInput(f"{where}: no field {self.field!r}", f"--field NAME; it has {fields}")

    def _parsed(self, raw: bytes, where: str) -> Any:
        """The JSON value; None where it is none. BadInput for what only looks like JSON to Python."""
        import json

        def refuse(word: str) -> None:
            raise BadInput(f"{where}: {word} is not JSON", "null is")

        def finite(word: str) -> float:
            if abs(value := float(word)) == float("inf"):
                raise BadInput(f"{where}: {word[:20]} is too large a number", "up to 1.7e308")
            return value

        try:
            text = self._decode(raw).removeprefix("\ufeff")
            return json.loads(text, parse_constant=refuse, parse_float=finite)
        except (ValueError, RecursionError):
            return None

    def _decode(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.invalid += 1
            return raw.decode("utf-8", "replace")


def inside(data: Data, name: str) -> Any:
    """What an object has under a name, or by `author.name` inside of one that it has; NOTHING where there is none.

    It is one value: unlike the conditions of `embed/filters.py`, it goes into no lists."""
    found: Any = data
    for part in _path(data, name):
        if not isinstance(found, dict) or part not in found:
            return NOTHING
        found = found[part]
    return found


def without(data: Data, name: str) -> Data:
    """An object less what `inside` finds in it."""

    def less(whole: Any, part: str, *rest: str) -> Any:
        if not isinstance(whole, dict) or part not in whole:
            return whole
        kept = {part: less(whole[part], *rest)} if rest else {}
        return {**{key: value for key, value in whole.items() if rest or key != part}, **kept}

    found: Data = less(data, *_path(data, name))
    return found


def _path(data: Data, name: str) -> list[str]:
    return [name] if name in data else name.split(".")


def split(chunks: Iterable[bytes], separator: bytes) -> Iterator[list[bytes]]:
    """Lists of whole records; the last needs no separator. A long record is joined only once.

    An empty chunk, which says that there is nothing more yet, gives an empty list."""
    begun: list[bytes] = []
    for chunk in chunks:
        if not chunk:
            yield []
            continue
        first, *rest = chunk.split(separator)
        begun.append(first)
        if rest:
            whole = [b"".join(begun), *rest]
            begun = [whole.pop()]
            yield whole
    last = b"".join(begun)
    if last:
        yield [last]
