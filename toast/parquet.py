"""Parquet files as records, and answers as columns beside theirs; by pyarrow (the extra `parquet`).

A record is a row, its text a column of strings. Files are read in pieces of at most pipes.WINDOW rows; standard input
is kept in a private file first, as Parquet begins at its end. What is written has the rows and columns that were read
and new columns after them, a row group for each piece. Source: https://parquet.apache.org/docs/file-format/
"""

from __future__ import annotations

import json
import os
from functools import cached_property

from toast import files, pipes
from toast.errors import BadInput, UsageError
from toast.options import refuse_with
from toast.records import Record, Records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from toast.command import Call

    Table = Any  # pyarrow has no types of its own


def library() -> Any:
    """pyarrow; UsageError where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise UsageError("--parquet needs pyarrow", "pip install 'toast-filters[parquet]'") from None
    return pyarrow


class Rows(Records):
    """The rows of Parquet files, with the face of Records. `tables()` gives what they came in, too."""

    def __init__(
        self, call: Call, names: list[str], *,
        nul: bool = False, jsonl: bool = False, **given: Any,
    ) -> None:  # fmt: skip
        refuse_with("--parquet", {"-0": nul, "--jsonl": jsonl})
        super().__init__(call, names, jsonl=True, **given)
        self.arrow = library()

    def where(self, name: str, number: int | None = None) -> str:
        """What a message calls a file, or a row of it."""
        return super().where(name) if number is None else f"{super().where(name)}, row {number}"

    def windows(self) -> Iterator[list[Record]]:
        for field in self.schema if self.files else ():
            if self._has_bytes(field.type):
                told = (
                    f"{self.where(self.files[0])}: column {field.name!r} holds {field.type}, which JSON has no form for"
                )
                raise BadInput(told, "leave it out of the file")
        for table, window in self.tables():
            columns = [name for name in table.column_names if name != self.field]
            for record, row in zip(window, table.select(columns).to_pylist(), strict=True):
                record.data = {self.field: record.text} | _plain(row) | (record.data or {})
                record.raw = json.dumps(record.data, ensure_ascii=False).encode("utf-8", "backslashreplace")
            yield window

    def tables(self) -> Iterator[tuple[Table, list[Record]]]:
        """(table, its rows as records), without rows that hold no text."""
        for name in self.files:
            where, number = self.where(name), 0
            for batch in self._batches(name, where):
                texts: list[str | None] = batch.column(self.field).to_pylist()
                window = []
                for i, text in enumerate(texts, number + 1):
                    if text is None:
                        self.refuse(BadInput(f"{self.where(name, i)}: no text in {self.field!r}", "a text is a string"))
                        self.count += 1
                        continue
                    window.append(Record(b"", text, number=i))
                    self.number(window[-1], name)
                number += len(texts)
                table = self.arrow.Table.from_batches([batch])
                yield table.filter(self.arrow.array([text is not None for text in texts])), window

    def some(self, table: Table, window: list[Record], kept: list[Record]) -> Table:
        """The rows of a table whose records were kept of all of them."""
        if len(kept) == len(window):
            return table
        there = {record.number for record in kept}
        return table.filter(self.arrow.array([record.number in there for record in window]))

    @cached_property
    def schema(self) -> Any:
        """The columns of the first file; the others must have the same."""
        where = self.where(self.files[0])
        return self._checked(self._open(self.files[0], where).schema_arrow, where)

    def _has_bytes(self, kind: Any) -> bool:
        """Whether values of a type are, or hold, bytes."""
        kinds = self.arrow.types
        if kinds.is_dictionary(kind):
            return self._has_bytes(kind.value_type)
        own = "binary" in str(kind) and not kinds.is_nested(kind)
        return own or any(self._has_bytes(kind.field(i).type) for i in range(kind.num_fields))

    def _checked(self, schema: Any, where: str) -> Any:
        """The schema; BadInput unless it has the column, and text there."""
        if self.field not in schema.names:
            told = f"{where}: no column {self.field!r}"
            raise BadInput(told, f"--field NAME; it has {', '.join(schema.names[:8])}")
        kind, kinds = schema.field(self.field).type, self.arrow.types
        kind = kind.value_type if kinds.is_dictionary(kind) else kind
        if not any(of(kind) for of in (kinds.is_string, kinds.is_large_string, kinds.is_null)):
            raise BadInput(f"{where}: column {self.field!r} holds no text but {kind}", "a text is a string")
        return schema

    def _batches(self, name: str, where: str) -> Iterator[Any]:
        file = self._open(name, where)
        if not file.schema_arrow.equals(self.schema):
            raise BadInput(f"{where} has other columns than {self.where(self.files[0])}", "give files of one table")
        try:
            yield from file.iter_batches(pipes.WINDOW)
        except (self.arrow.ArrowException, OSError) as error:
            raise BadInput(f"cannot read {where}: {str(error).splitlines()[0]}") from None

    def _open(self, name: str, where: str) -> Any:
        """The opened file; standard input stays what it was when this is called again."""
        if name == "-" and pipes.is_pipe(self.call.stdin):
            if "" not in self.call.kept:  # no path is called so
                self.call.kept[""] = files.spool(self.call, pipes.read_chunks(self.call, "-", where))
            fd = os.dup(self.call.kept[""])
        else:
            fd = os.dup(self.call.stdin) if name == "-" else pipes.open_again(self.call, name)
        try:
            return self.arrow.parquet.ParquetFile(os.fdopen(fd, "rb"))
        except (self.arrow.ArrowException, OSError) as error:
            raise BadInput(f"cannot read {where}: no Parquet file", str(error).splitlines()[0][:100]) from None


class Output:
    """Parquet on standard output: tables with columns added to them, as they come."""

    def __init__(self, call: Call, rows: Rows, columns: dict[str, Any], *, names: dict[str, str] | None = None) -> None:
        """columns: name -> type of those that are added; they replace columns of their name, which is told.
        names: columns that go by another name from now on."""
        pipes.refuse_terminal(call, "... > answers.parquet")
        self.arrow, self.columns, self.names, self.sink = rows.arrow, columns, names or {}, _Sink(call)
        fields = [field.with_name(self.names.get(field.name, field.name)) for field in rows.schema]
        for name in [field.name for field in fields if field.name in columns]:
            call.warn(f"column {name!r} of the input is replaced")
        fields = [field for field in fields if field.name not in columns]
        self.schema = self.arrow.schema([*fields, *(self.arrow.field(*pair) for pair in columns.items())])
        self.writer = self.arrow.parquet.ParquetWriter(self.arrow.PythonFile(self.sink, "w"), self.schema)

    def add(self, table: Table, answers: dict[str, Any]) -> None:
        """A table and an array for each new column."""
        table = table.rename_columns([self.names.get(name, name) for name in table.column_names])
        kept = table.select([name for name in table.column_names if name not in self.columns])
        columns = [*kept.columns, *(answers[name] for name in self.columns)]
        self.writer.write_table(self.arrow.table(columns, schema=self.schema))

    def close(self) -> None:
        """Without this what was written is no Parquet."""
        self.writer.close()


class _Sink:
    """Standard output with the face of a file that pyarrow asks for."""

    closed = False

    def __init__(self, call: Call) -> None:
        self.fd = call.stdout

    def write(self, data: Any) -> int:
        pipes.write_all(self.fd, data)
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """What JSON can hold of a row: times as text."""
    found: dict[str, Any] = json.loads(json.dumps(row, default=str))
    return found
