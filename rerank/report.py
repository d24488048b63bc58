"""`classify --report`: how well an engine labels records whose label is known.

Owns the table. Knows nothing of the engine; the measures are `logistic.py`'s.
"""

from __future__ import annotations

import numpy as np

from rerank import logistic, probe
from toast import pipes
from toast.errors import BadInput, Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from toast.command import Call
    from toast.records import Records

WIDEST = 20  # labels of a confusion table; with more, the commonest confusions are listed


def report(call: Call, records: Records, engine: Any) -> int:
    """Accuracy, macro-F1, calibration error and confusions on standard output."""
    texts, named = probe.examples(records)
    if not texts:
        return Exit.NONE
    index = {label: i for i, label in enumerate(engine.labels)}
    unknown = next((label for label in named if label not in index), None)
    if unknown is not None:
        raise BadInput(
            f"{records.where(records.files[0])}: label {unknown!r} is not one of {', '.join(engine.labels[:20])}"
        )
    y = np.array([index[label] for label in named])
    P = np.array(engine.probabilities(texts))
    table = np.zeros((len(index), len(index)), int)
    np.add.at(table, (y, P.argmax(axis=1)), 1)
    lines = [
        f"records\t{len(y)}",
        f"accuracy\t{np.trace(table) / len(y):.4f}",
        f"macro-F1\t{logistic.macro_f1(table):.4f}",
        f"calibration error\t{logistic.calibration_error(P, y):.4f}",
        "",
        *(confusion(engine.labels, table) if len(index) <= WIDEST else commonest(engine.labels, table)),
    ]
    pipes.write_answer(call, "".join(line + "\n" for line in lines).encode())
    return Exit.OK


def confusion(labels: list[str], table: np.ndarray) -> Iterator[str]:
    """A row for each label as it is, a column for each as it was given."""
    yield "\t".join(["is \\ given", *labels])
    for label, row in zip(labels, table, strict=True):
        yield "\t".join([label, *map(str, row)])


def commonest(labels: list[str], table: np.ndarray) -> Iterator[str]:
    """The pairs that were confused most."""
    yield "count\tis\tgiven"
    wrong = table - np.diag(np.diag(table))
    for at in np.argsort(-wrong, axis=None, kind="stable")[:WIDEST]:
        i, j = divmod(int(at), len(labels))
        if wrong[i, j]:
            yield f"{wrong[i, j]}\t{labels[i]}\t{labels[j]}"
