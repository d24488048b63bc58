"""`classify --report`: how well an engine labels records whose labels are known.

Owns the table. Knows nothing of the engine; the measures are `calibration.py`'s.
"""

from __future__ import annotations

import numpy as np

from rerank import calibration, examples
from rerank.classify import Form, tell_long
from toast import pipes
from toast.errors import BadInput, BadText, Exit, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from rerank.examples import Example
    from toast.command import Call

WIDEST = 20  # labels of a confusion table, and pairs that are listed
SHOWN = 200  # characters of a text beside its mistake


def report(call: Call, file: str, engine: Any, *, field: str | None = None, errors: bool = False) -> int:
    """Accuracy, macro-F1, calibration error and confusions on standard output; of lists of labels, F1."""
    if not engine.labels:
        raise UsageError(f"{engine.name} gives a score and no labels", "--report is of labels")
    known = examples.read(call, file, field=field)
    if not known:
        return Exit.NONE
    for example in known:
        for name in example.labels:
            if name not in engine.labels:
                raise BadInput(f"{example.where}: label {name!r} is not one of {', '.join(engine.labels[:20])}")
    try:
        rows = engine.probabilities([example.text for example in known])
    except BadText as error:
        raise error.of(known[error.at[0]].where) from None
    given = known[0].listed or engine.multi
    lines = _many(known, rows, engine, errors=errors) if given else _one(known, rows, engine.labels, errors=errors)
    pipes.write_answer(call, "".join(line + "\n" for line in lines).encode())
    tell_long(call, engine)
    return Exit.OK


def _one(known: list[Example], rows: list[Any], labels: list[str], *, errors: bool) -> Iterator[str]:
    """Of a label for each text; of one without a token, whose labels are all alike, the first counts."""
    alike = [1 / len(labels)] * len(labels)
    P, index = np.array([row or alike for row in rows]), {label: i for i, label in enumerate(labels)}
    y, found = np.array([index[example.label] for example in known]), P.argmax(axis=1)
    table = np.zeros((len(labels), len(labels)), int)
    np.add.at(table, (y, found), 1)
    yield f"records\t{len(y)}"
    yield f"accuracy\t{np.trace(table) / len(y):.4f}"
    yield f"macro-F1\t{calibration.macro_f1(table):.4f}"
    yield f"calibration error\t{calibration.calibration_error(P, y):.4f}"
    pairs = list(commonest(labels, table))
    yield from ["", "count\tis\tgiven", *pairs] if pairs else []
    if len(labels) <= WIDEST:
        yield from ["", *confusion(labels, table)]
    wrong = [i for i in range(len(y)) if found[i] != y[i]] if errors else []
    yield from _mistakes([(known[i], known[i].label, labels[found[i]], float(P[i, found[i]])) for i in wrong])


def _many(known: list[Example], rows: list[Any], engine: Any, *, errors: bool) -> Iterator[str]:
    """Of any number of labels for each text: F1 of all, and of each label."""
    form = Form(multi=True).of(engine)
    found = [{label for label, _ in form.given(engine.labels, row)} for row in rows]
    mine = [set(example.labels) for example in known]
    yield f"records\t{len(known)}"
    yield f"all labels right\t{np.mean([a == b for a, b in zip(found, mine, strict=True)]):.4f}"
    counts = [[sum(label in s for s in sets) for label in engine.labels] for sets in (found, mine)]
    both = [sum(label in a and label in b for a, b in zip(found, mine, strict=True)) for label in engine.labels]
    yield f"F1\t{2 * sum(both) / max(1, sum(map(sum, counts))):.4f}"
    yield from ["", "label\trecords\tgiven\tprecision\trecall"]
    for label, right, given, there in zip(engine.labels, both, *counts, strict=True):
        yield f"{label}\t{there}\t{given}\t{right / max(1, given):.4f}\t{right / max(1, there):.4f}"
    wrong = [i for i in range(len(known)) if found[i] != mine[i]] if errors else []
    yield from _mistakes(
        [(known[i], ",".join(sorted(mine[i])), ",".join(sorted(found[i])), max(rows[i] or [0.0])) for i in wrong]
    )


def _mistakes(wrong: list[tuple[Example, str, str, float]]) -> Iterator[str]:
    """Where each is, what it is, what it was given, how sure that was, and its text."""
    if wrong:
        yield from ["", "where\tis\tgiven\tscore\ttext"]
    for example, own, given, score in wrong:
        yield "\t".join([example.where, own, given, f"{score:.4f}", " ".join(example.text.split())[:SHOWN]])


def confusion(labels: list[str], table: np.ndarray) -> Iterator[str]:
    """A row for each label as it is, a column for each as it was given."""
    yield "\t".join(["is \\ given", *labels])
    for label, row in zip(labels, table, strict=True):
        yield "\t".join([label, *map(str, row)])


def commonest(labels: list[str], table: np.ndarray) -> Iterator[str]:
    """The pairs that were confused most."""
    wrong = table - np.diag(np.diag(table))
    for at in np.argsort(-wrong, axis=None, kind="stable")[:WIDEST]:
        i, j = divmod(int(at), len(labels))
        if wrong[i, j]:
            yield f"{wrong[i, j]}\t{labels[i]}\t{labels[j]}"
