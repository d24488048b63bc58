"""`embed`: records to vectors, a row for each record, in the order of the input.

Owns the forms of a vector and the verb. Knows nothing of models (`toast/encoding/encoder.py`) or of
descriptors (`toast/pipes.py`).
"""

from __future__ import annotations

from bisect import bisect

import mlx.core as mx

from toast import npy, pipes
from toast.encoding.encoder import Encoder
from toast.errors import BadText
from toast.spool import Spool
from toast.store.safetensors import data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from toast.command import Call
    from toast.records import Record, Records

# ---------------------------------------------------------------- forms of a vector


def to_int8(x: mx.array) -> mx.array:
    """round(127 x / max|x|), row by row."""
    return mx.round(127 * x / mx.maximum(mx.max(mx.abs(x), axis=1, keepdims=True), 1e-30)).astype(mx.int8)


def to_bits(x: mx.array) -> mx.array:
    """Packed bits of x > 0, first number in the highest bit: (N, D) -> (N, ceil(D / 8)) uint8."""
    bits = mx.pad((x > 0).astype(mx.uint8), [(0, 0), (0, -x.shape[1] % 8)])
    powers = mx.array([128, 64, 32, 16, 8, 4, 2, 1], mx.uint8)
    return mx.sum(bits.reshape(x.shape[0], -1, 8) * powers, axis=2).astype(mx.uint8)


# precision -> (type in a .npy, what makes it of float32 rows (N, D))
FORMS: dict[str, tuple[str, Callable[[mx.array], mx.array]]] = {
    "f32": ("<f4", lambda x: x),
    "f16": ("<f2", lambda x: x.astype(mx.float16)),
    "int8": ("|i1", to_int8),
    "binary": ("|u1", to_bits),
}


# ---------------------------------------------------------------- the verb


def embed(
    call: Call, records: Records, encoder: Encoder, *,
    precision: str = "f32", json: bool = False, raw: bool = False, parquet: bool = False,
) -> None:  # fmt: skip
    """A vector for each record on standard output: .npy, JSON lines, raw rows, or a column beside those of Parquet."""
    if not json:
        pipes.refuse_terminal(call, "embed ... > vectors.npy, or --json")
    windows = () if parquet and not (json or raw) else _windows(records, encoder)
    places = Places()
    if json:
        _write_json(call, records, windows, encoder=encoder, precision=precision)
    elif parquet and not raw:
        _write_parquet(call, records, encoder, precision=precision)
    elif raw:
        _write_rows(
            call, places.texts(windows), encoder, precision=precision, places=places,
            write=lambda rows: pipes.write_all(call.stdout, rows),
        )  # fmt: skip
    else:
        _write_npy(call, places.texts(windows), encoder, precision=precision, places=places)
    if encoder.cut:
        done = "averaged over its pieces" if encoder.long == "mean" else "cut"
        say = call.warn if encoder.long == "mean" else call.cut
        say(f"{pipes.plural(encoder.cut, 'record')} over {encoder.tokens.max_length} tokens {done}")


class Places:
    """Where the texts of a run stand in its input, by their order: a mark for each stretch of lines without a gap."""

    def __init__(self) -> None:
        self.count = 0
        self.marks: list[tuple[int, Callable[..., str], str, int]] = []  # (first text, what names it, file, its line)

    def texts(self, windows: Iterable[list[Record]]) -> Iterator[list[str]]:
        """The texts of the records, whose places are noted as they go by."""
        for window in windows:
            for record in window:
                first, _, file, line = self.marks[-1] if self.marks else (0, None, None, 0)
                if record.records and (record.file, record.number - self.count) != (file, line - first):
                    self.marks.append((self.count, record.records.where, record.file, record.number))
                self.count += 1
            yield [record.text for record in window]

    def of(self, text: int) -> str:
        """What a message calls the record of a text."""
        first, where, file, line = self.marks[bisect(self.marks, text, key=lambda mark: mark[0]) - 1]
        return where(file, line + text - first)


def _write_npy(call: Call, windows: Iterable[list[str]], encoder: Encoder, *, precision: str, places: Places) -> None:
    descr, form = FORMS[precision]
    rows = None
    if not npy.can_patch(call.stdout):
        spool = Spool(call)
        for window in windows:
            spool.extend(window)
        windows, rows = spool.windows(), spool.count
    columns = form(mx.zeros((1, encoder.dims))).shape[1]
    array = npy.Npy(call, descr, columns=columns, rows=rows)
    _write_rows(call, windows, encoder, precision=precision, places=places, write=array.write, total=rows)
    array.close()


def _write_rows(
    call: Call,
    windows: Iterable[list[str]],
    encoder: Encoder,
    *,
    precision: str,
    places: Places,
    write: Callable[[memoryview], object],
    total: int | None = None,
) -> None:
    form, done = FORMS[precision][1], 0
    with pipes.progress(call, total) as bar:
        for window in windows:
            try:
                rows = form(encoder.encode(window)) if window else None
            except BadText as error:  # a header may have said how many rows there are: none is left out
                raise error.of(places.of(done + error.at[0])) from None
            if rows is not None:
                write(memoryview(data(rows)))
            done += len(window)
            bar.update(len(window))


def _windows(records: Records, encoder: Encoder) -> Iterable[list[Record]]:
    """The windows of records; of `--long error` without those over the limit, which are refused before a header says
    how many rows there are."""
    if encoder.long != "error":
        return records.windows()
    return (records.answered(window, lambda texts: encoder.pieces(texts) and None)[0] for window in records.windows())


def _write_json(
    call: Call, records: Records, windows: Iterable[list[Record]], *, encoder: Encoder, precision: str
) -> None:
    form = FORMS[precision][1]
    for window in windows:
        lines = []
        kept, rows = records.answered(window, lambda texts: form(encoder.encode(texts)).tolist())
        for record, row in zip(kept, rows, strict=True):
            lines.append(pipes.json_line({**(record.data or {}), "index": record.index, "embedding": row}))
        pipes.write_answer(call, b"".join(lines))


def _write_parquet(call: Call, rows: Any, encoder: Encoder, *, precision: str) -> None:
    """The rows that came with a column `embedding` of lists of one length."""
    from toast.parquet import Output

    descr, form = FORMS[precision]
    columns, arrow = form(mx.zeros((1, encoder.dims))).shape[1], rows.arrow
    kind = {"<f4": arrow.float32(), "<f2": arrow.float16(), "|i1": arrow.int8(), "|u1": arrow.uint8()}[descr]
    output = Output(call, rows, {"embedding": arrow.list_(kind, columns)})
    with pipes.progress(call) as bar:
        for table, window in rows.tables():
            kept, numbers = rows.answered(window, lambda texts: arrow.py_buffer(data(form(encoder.encode(texts)))))
            flat = arrow.Array.from_buffers(kind, len(kept) * columns, [None, numbers or arrow.py_buffer(b"")])
            output.add(
                rows.some(table, window, kept), {"embedding": arrow.FixedSizeListArray.from_arrays(flat, columns)}
            )
            bar.update(len(window))
    output.close()
