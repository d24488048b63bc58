"""`classify`: records labelled, filtered by a label, or counted.

Owns lists of labels, thresholds and the forms of an answer. Knows nothing of models
(`engines.py`) or of descriptors (`toast/pipes.py`).
"""

from __future__ import annotations

from toast import pipes
from toast.errors import Exit, UsageError, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from toast.command import Call
    from toast.records import Record, Records


LONGEST = 16 << 20  # bytes of a file of labels


def read_labels(call: Call, inline: str | None, file: str | None, *, least: int = 2) -> list[tuple[str, str]]:
    """[(label, description)] of `a,b,c`, else of a file with `label: description` on each line.

    Without a description the label describes itself. Raises UsageError.
    """
    if inline is not None and file is not None:
        raise UsageError("labels are given twice", "-l or -L, not both")
    pairs: list[Any] = [(label, "") for label in inline.split(",")] if inline is not None else []
    if file is not None:
        lines = _lines(call, file)
        pairs = [line.partition(":")[::2] for line in lines if line.strip()]
        if not pairs:
            raise UsageError(f"{file}: no labels", "a label on each line, or label: description")
    pairs = [(pipes.clean(label).strip(" "), pipes.clean(about).strip()) for label, about in pairs]
    _check([label for label, _ in pairs], least, f"{file}: " if file is not None else "")
    # an identifier such as card_arrival reads better as words
    return [(label, about or label.replace("_", " ")) for label, about in pairs]


def _lines(call: Call, file: str) -> list[str]:
    import os

    if file == "-":
        raise UsageError("-L - would read the records", "-L wants the name of a file")
    try:
        fd = pipes.open_again(call, file)
    except OSError as error:
        raise os_error(error, f"read {file}") from None
    try:
        data, whole = pipes.read_up_to(fd, LONGEST, file)
    finally:
        os.close(fd)
    if not whole:
        raise UsageError(f"{file} is longer than the {LONGEST} bytes that labels may have")
    return pipes.decoded(data)[0].removeprefix("\ufeff").splitlines()


def _check(labels: list[str], least: int, where: str) -> None:
    seen: set[str] = set()
    for label in labels:
        if not label:
            raise UsageError(f"{where}a label is empty")
        if not label.isprintable():
            raise UsageError(f"{where}label {label!r} has a character that cannot be printed")
        if label in seen:
            raise UsageError(f"{where}label {label!r} is given twice")
        seen.add(label)
    if 0 < len(labels) < least:
        raise UsageError(f"{where}one label decides nothing", "-l bug,feature, -L FILE, or --multi")


class Form:
    """What is written: labels of a record or the records of a label.

    k: labels written of each record, all of those at least `threshold` under `multi`; only: the
    labels whose records are written bare; invert: the others' records; count: only their number.
    """

    def __init__(
        self, *, k: int | None = None, multi: bool = False, threshold: float | None = None, only: Iterable[str] = (),
        invert: bool = False, count: bool = False, json: bool = False, end: bytes = b"\n",
    ) -> None:  # fmt: skip
        if invert and not only:
            raise UsageError("--invert goes with --only LABEL")
        self.k, self.multi, self.only, self.invert = k, multi, set(only), invert
        self.threshold = 0.5 if threshold is None and multi else threshold
        self.count, self.json, self.end = count, json, end

    def found(self, labels: list[str], scores: list[float]) -> list[tuple[str, float]]:
        """(label, score) of the labels that a record is given, best first."""
        order = sorted(range(len(labels)), key=lambda i: -scores[i])
        keep = order if self.multi else order[:1] if self.only or self.count else order[: self.k or 1]
        return [(labels[i], scores[i]) for i in keep if self.threshold is None or scores[i] >= self.threshold][: self.k]

    def lines(self, record: Record, labels: list[str], scores: list[float]) -> bytes:
        """What a record writes, nothing if it is not wanted."""
        found = self.found(labels, scores)
        if self.only:
            wanted = any(label in self.only for label, _ in found) != self.invert
            if not wanted:
                return b""
            if not self.json:
                return record.raw + self.end
        if self.json:
            return self._json(record, found, labels=labels, scores=scores)
        return b"".join(f"{label}\t{score:.6f}\t".encode() + record.raw + self.end for label, score in found)

    def _json(self, record: Record, found: list[tuple[str, float]], *, labels: list[str], scores: list[float]) -> bytes:
        if not found and not self.only:
            return b""
        order = sorted(range(len(labels)), key=lambda i: -scores[i])[: self.k]
        ranked: list[dict[str, Any]] = [{"label": labels[i], "score": scores[i]} for i in order]
        best = {"label": found[0][0], "score": found[0][1]} if found else ranked[0]
        return pipes.json_line({**(record.data or {}), **best, "labels": ranked, "text": record.text})


def classify(call: Call, records: Records, engine: Any, *, form: Form) -> int:
    """Labelled records on standard output, in the order of the input; Exit.NONE when none is."""
    for label in form.only:
        if label not in engine.labels:
            raise UsageError(f"--only: no label {label!r}", f"the labels are {', '.join(engine.labels[:20])}")
    counts, written = dict.fromkeys(engine.labels, 0), 0
    with pipes.progress(call) as bar:
        for window in records.windows():
            for start in range(0, len(window), 256):
                part = window[start : start + 256]
                rows = engine.probabilities([record.text for record in part])
                written += _write(call, part, rows, labels=engine.labels, form=form, counts=counts)
                bar.update(len(part))
    if form.count:
        _write_counts(call, form, counts, written=written)
    if engine.cut:
        call.cut(f"{pipes.plural(engine.cut, 'record')} over the model's limit cut")
    return Exit.OK if written else Exit.NONE


def _write(
    call: Call, records: list[Record], rows: list[list[float]], *, labels: list[str], form: Form, counts: dict[str, int]
) -> int:
    """How many records were written or counted."""
    if form.count:
        for scores in rows:
            for label, _ in form.found(labels, scores):
                counts[label] += 1
    lines = [form.lines(record, labels, scores) for record, scores in zip(records, rows, strict=True)]
    if not form.count:
        pipes.write_answer(call, b"".join(lines))
    return sum(map(bool, lines))


def _write_counts(call: Call, form: Form, counts: dict[str, int], *, written: int) -> None:
    """The number of matching records under --only, else a line `label<TAB>count` for each label."""
    lines = [f"{written}\n"] if form.only else [f"{label}\t{count}\n" for label, count in counts.items()]
    text = "".join(lines)
    pipes.write_answer(call, text.encode())
