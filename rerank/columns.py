"""`classify --parquet`: the rows that came, with columns `label`, `score` and, of any number of labels, `labels`.

Owns the columns. Which labels a row is given is `classify.py`'s, the file `toast/parquet.py`'s.
"""

from __future__ import annotations

from rerank.classify import BLOCK, GOLD, Form, check, tell_long
from toast import pipes
from toast.errors import Exit
from toast.parquet import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rerank.blocks import Row
    from toast.command import Call
    from toast.parquet import Rows


def classify(call: Call, rows: Rows, engine: Any, *, form: Form) -> int:
    """Parquet on standard output; Exit.NONE when no row has a label. The label that a row came with is its `gold`."""
    form = form.of(engine)
    check(engine, form)
    arrow, found = rows.arrow, 0
    kinds = {"score": arrow.float64()}
    if engine.labels:
        kinds = {"label": arrow.string(), **kinds} | ({"labels": arrow.list_(arrow.string())} if form.multi else {})
    output = Output(call, rows, kinds, names=gold(rows.schema.names) if engine.labels else {})
    with pipes.progress(call) as bar:
        for table, window in rows.tables():
            kept: list[Any] = []
            answers: list[dict[str, Any]] = []
            for start in range(0, len(window), BLOCK):
                own, scores = rows.answered(window[start : start + BLOCK], engine.probabilities)
                kept += own
                answers += [_answer(engine.labels, row, form) for row in scores]
            found += sum(answer["label"] != "" for answer in answers)
            columns = {name: arrow.array([one[name] for one in answers], kind) for name, kind in kinds.items()}
            output.add(rows.some(table, window, kept), columns)
            bar.update(len(window))
    output.close()
    tell_long(call, engine)
    return Exit.OK if found else Exit.NONE


def _answer(labels: list[str], row: Row, form: Form) -> dict[str, Any]:
    """As in JSON: the label that is given, or none; its score, or the best one."""
    if not labels:
        return {"label": None, "score": row[0] if row else None}
    given = form.given(labels, row)
    best = max(row) if row else 0.0 if form.multi else 1 / len(labels)
    label, score = given[0] if given else (form.none or "", best)
    return {"label": label, "score": score, "labels": [name for name, _ in given]}


def gold(names: list[str]) -> dict[str, str]:
    """What a column of labels is called from now on, unless there is a gold one."""
    there = [name for name in GOLD if name in names]
    return {there[0]: "gold"} if there and "gold" not in names else {}
