"""`classify`: records labelled, filtered by a label, or counted.

Owns which labels a record is given and the forms of an answer. Knows nothing of models (`engines.py`) or of
descriptors (`toast/pipes.py`).
"""

from __future__ import annotations

from toast import pipes
from toast.errors import Exit, UsageError
from toast.options import refuse_unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from rerank.blocks import Row
    from toast.command import Call
    from toast.records import Record, Records

    Given = list[tuple[str, float]]  # (label, score), best first

BLOCK = 256  # records that are answered together
GOLD = ("label", "labels")  # fields of a record that ours replace; the first there is kept as `gold`


class Form:
    """What is written: labels of a record or the records of a label.

    k: labels written of each record, all of those at least `threshold`, or their own of `thresholds`, under `multi`;
    only: the labels whose records are written bare; invert: the others' records; count: only their number; none: the
    label of a record that is given no other; numbered: objects have the record's number, `index`.
    """

    def __init__(
        self, *, k: int | None = None, multi: bool = False, threshold: float | None = None,
        thresholds: Mapping[str, float] | None = None, only: Iterable[str] = (), invert: bool = False,
        count: bool = False, json: bool = False, numbered: bool = False, none: str | None = None, end: bytes = b"\n",
    ) -> None:  # fmt: skip
        if invert and not only:
            raise UsageError("--invert goes with --only LABEL")
        self.k, self.multi, self.only, self.invert = k, multi, set(only), invert
        self.threshold, self.thresholds = threshold, dict(thresholds or {})
        self.count, self.json, self.numbered, self.none, self.end = count, json, numbered, none, end

    def of(self, engine: Any) -> Form:
        """The same for an engine that brings thresholds, or gives any number of labels, by itself."""
        other = object.__new__(Form)
        other.__dict__.update(self.__dict__)
        other.thresholds = getattr(engine, "thresholds", {}) | self.thresholds
        other.multi = self.multi or getattr(engine, "many", False)
        return other

    def least(self, label: str) -> float | None:
        """The score that a record needs for a label, None where any will do."""
        return self.thresholds.get(label, 0.5 if self.multi and self.threshold is None else self.threshold)

    def given(self, labels: list[str], row: Row) -> Given:
        """The labels that a record is given; without a token of text it is given none."""
        if row is None:
            return []
        order = _order(row)
        keep = order if self.multi else order[:1] if self.only or self.count else order[: self.k or 1]
        found = [(labels[i], row[i]) for i in keep if (least := self.least(labels[i])) is None or row[i] >= least]
        return found[: self.k]

    def writes(self, given: Given) -> bool:
        """Whether a record is written: each, unless the records of some labels are asked for."""
        names = [label for label, _ in given] or [self.none or ""]
        return not self.only or any(label in self.only for label in names) != self.invert

    def text(self, record: Record, given: Given, best: float) -> bytes:
        """LABEL<TAB>SCORE<TAB>RECORD for each label given, with an empty one or `none` where there is no other."""
        if self.only:
            return record.raw + self.end
        rows = given or [(self.none or "", best)]
        return b"".join(f"{label}\t{score:.6f}\t".encode() + record.raw + self.end for label, score in rows)

    def object(self, record: Record, given: Given, ranked: Given) -> bytes:
        """A JSON object: the label, its score, and the labels that were given (of `multi`), or all, best first."""
        best = max((score for _, score in ranked), default=0.0)
        label, score = given[0] if given else (self.none or "", best)
        labels = [{"label": label, "score": score} for label, score in (given if self.multi else ranked[: self.k])]
        own = {"label": label, "score": score, "labels": labels, "text": record.text}
        return pipes.json_line({**carried(record.data or {}), **self.number(record), **own})

    def number(self, record: Record) -> dict[str, int]:
        """The fields that say which record an object is of."""
        return {"index": record.index} if self.numbered else {}


def carried(data: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record beside ours: the label it came with becomes `gold`, unless it has a gold one."""
    kept = {name: value for name, value in data.items() if name not in GOLD}
    known = [data[name] for name in GOLD if name in data]
    return {**kept, "gold": known[0]} if known and "gold" not in data else kept


def _order(row: list[float]) -> list[int]:
    """Best first, equals in the order of the labels."""
    return sorted(range(len(row)), key=lambda i: -row[i])


class Answer:
    """What is written of the records of one run, and how many have a label, or are wanted."""

    def __init__(self, call: Call, engine: Any, form: Form) -> None:
        self.call, self.labels, self.form, self.found, self.without = call, engine.labels, form, 0, 0
        # nothing says one label rather than another: a text without a token has them all alike
        self.alike = 0.0 if form.multi else 1 / max(1, len(self.labels))
        names = self.labels if form.none is None else [*self.labels, form.none]
        self.counts = dict.fromkeys(names, 0)

    def add(self, records: list[Record], rows: list[Row]) -> None:
        """Write what is wanted of some records, or count it."""
        lines = [self._line(record, row) for record, row in zip(records, rows, strict=True)]
        if not self.form.count:
            pipes.write_answer(self.call, b"".join(lines))

    def _line(self, record: Record, row: Row) -> bytes:
        form = self.form
        given = form.given(self.labels, row)
        if not form.writes(given):
            return b""
        self.found += bool(given or form.only or form.none is not None)
        self.without += not (given or form.none is not None)
        for label in [label for label, _ in given] or ([form.none] if form.none is not None else []):
            self.counts[label] += 1
        scores = row or [self.alike] * len(self.labels)
        if form.json:
            return form.object(record, given, [(self.labels[i], scores[i]) for i in _order(scores)])
        return form.text(record, given, max(scores))

    def end(self) -> int:
        """Write the counts: of the records under --only, else a line `label<TAB>count` for each label."""
        if self.form.count:
            lines = [f"{label}\t{count}\n" for label, count in self.counts.items()]
            text = f"{self.found}\n" if self.form.only else "".join(lines)
            pipes.write_answer(self.call, text.encode())
            if self.without and not self.form.only:
                self.call.warn(f"{pipes.plural(self.without, 'record')} without a label (--none NAME counts them)")
        return Exit.OK if self.found else Exit.NONE


class Scores:
    """The same of a model that gives a score and no label: SCORE<TAB>RECORD."""

    def __init__(self, call: Call, engine: Any, form: Form) -> None:
        if form.only or form.none is not None or form.k or form.multi:
            raise UsageError(f"{engine.name} gives a score and no labels", "only --threshold chooses records")
        self.call, self.form, self.found = call, form, 0

    def add(self, records: list[Record], rows: list[Row]) -> None:
        """Write, or count, the records that score enough; one without a token has no score."""
        lines = []
        for record, row in zip(records, rows, strict=True):
            score = row[0] if row else None
            if self.form.threshold is None or score is not None and score >= self.form.threshold:
                self.found += 1
                lines.append(self._line(record, score))
        if not self.form.count:
            pipes.write_answer(self.call, b"".join(lines))

    def _line(self, record: Record, score: float | None) -> bytes:
        if self.form.json:
            return pipes.json_line(
                {**(record.data or {}), **self.form.number(record), "score": score, "text": record.text}
            )
        return (f"{score:.6f}\t" if score is not None else "\t").encode() + record.raw + self.form.end

    def end(self) -> int:
        if self.form.count:
            pipes.write_answer(self.call, f"{self.found}\n".encode())
        return Exit.OK if self.found else Exit.NONE


def classify(call: Call, records: Records, engine: Any, *, form: Form) -> int:
    """Labelled records on standard output, in the order of the input; Exit.NONE when none has a label."""
    form = form.of(engine)
    check(engine, form)
    answer = Answer(call, engine, form) if engine.labels else Scores(call, engine, form)
    with pipes.progress(call) as bar:
        for window in records.windows():
            for start in range(0, len(window), BLOCK):
                part = window[start : start + BLOCK]
                answer.add(*records.answered(part, engine.probabilities))
                bar.update(len(part))
    status = answer.end()
    tell_long(call, engine)
    return status


def check(engine: Any, form: Form) -> None:
    """The labels that --only and --none name are, and are not, the engine's; scores can reach the thresholds."""
    if getattr(engine, "bounded", True):
        refuse_unreachable("--threshold", form.threshold)
        for label, least in form.thresholds.items():
            refuse_unreachable(f"the threshold of {label!r},", least)
    if form.none is not None and form.none in engine.labels:
        raise UsageError(f"--none: {form.none!r} is a label", "a name for records without one, such as other")
    for label in form.only - {form.none} if engine.labels else ():
        if label not in engine.labels:
            raise UsageError(f"--only: no label {label!r}", f"the labels are {', '.join(engine.labels[:20])}")


def tell_long(call: Call, engine: Any) -> None:
    """What became of the records over the model's limit."""
    if engine.cut:
        note = f"{pipes.plural(engine.cut, 'record')} over the model's limit"
        call.cut(f"{note} cut") if engine.long == "truncate" else call.info(f"{note} read in pieces")
