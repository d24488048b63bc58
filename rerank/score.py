"""`rerank`: the same records, best first, as they came.

Owns groups of records, order, threshold and the forms of an answer. Knows nothing of models
(`toast/encoding/relevance.py`) or of descriptors (`toast/pipes.py`).
"""

from __future__ import annotations

from functools import partial

from toast import pipes
from toast.encoding.relevance import Relevance
from toast.errors import BadInput, Exit, UsageError
from toast.records import NOTHING, Record, Records, inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.command import Call

    Group = tuple[str, list[Record]]  # query, its records


class Form:
    """How answers are chosen and written: at most k of each query, at least `threshold`."""

    def __init__(
        self, *, k: int | None = None, threshold: float | None = None, scores: bool = False, raw_scores: bool = False,
        json: bool = False, end: bytes = b"\n",
    ) -> None:  # fmt: skip
        self.k, self.threshold, self.json, self.end = k, threshold, json, end
        self.scores, self.raw = scores or raw_scores, raw_scores

    def line(self, index: int | None, score: float, record: Record) -> bytes:
        if self.json:
            own = {"index": index, "score": score, "text": record.text}
            return pipes.json_line({**(record.data or {}), **own})
        return (f"{score:.6f}\t".encode() if self.scores else b"") + record.raw + self.end


def rerank(
    call: Call, records: Records, scorer: Relevance, *,
    form: Form, query: str = "", long: str = "best", group: str | None = None, query_field: str | None = None,
) -> int:  # fmt: skip
    """Records on standard output by descending relevance; Exit.NONE when nothing is written."""
    groups, written = _groups(records, query, group=group, query_field=query_field), 0
    with pipes.progress(call, sum(len(members) for _, members in groups)) as bar:
        for asked, members in groups:
            kept: list[Record] = []
            logits: list[float] = []
            for start in range(0, len(members), 256):
                part = members[start : start + 256]
                own, found = records.answered(part, partial(scorer.logits, asked, long=long))
                kept, logits = kept + own, logits + found
                bar.update(len(part))
            scores = logits if form.raw else [scorer.score(logit) for logit in logits]
            written += _write(call, kept, logits, scores=scores, form=form)
    if scorer.queries_cut:
        call.cut(f"{pipes.plural(scorer.queries_cut, 'query')} over the model's limit cut")
    if scorer.cut:
        note = f"{pipes.plural(scorer.cut, 'record')} over the model's limit"
        call.cut(f"{note} cut") if long == "truncate" else call.info(f"{note} scored in windows")
    return Exit.OK if written else Exit.NONE


def _groups(records: Records, query: str, *, group: str | None, query_field: str | None) -> list[Group]:
    """[(query, records)] in the order in which the groups begin."""
    if group is None and query_field is None:
        return [(_query(query), list(records))]
    groups: dict[Any, Group] = {}
    for record in records:
        asked = query if query_field is None else inside(record.data or {}, query_field)
        try:
            asked = _query(asked, record)
            key = asked if group is None else _key(record, group)
        except BadInput as error:
            records.refuse(error)
            continue
        groups.setdefault(key, (asked, []))[1].append(record)
    return list(groups.values())


def _key(record: Record, field: str) -> str:
    """What a record's group is known by: 1 and "1" are two."""
    import json

    found = inside(record.data or {}, field)
    if found is NOTHING:
        raise BadInput(f"record {record.index + 1}: no field {field!r}", "--group NAME")
    return json.dumps(found, sort_keys=True)


def _query(query: object, record: Record | None = None) -> str:
    if isinstance(query, str) and query.strip():
        return pipes.clean(query)
    if record is None:
        raise UsageError("the query is empty", 'rerank "QUERY" < records')
    raise BadInput(f"record {record.index + 1}: no query", "--query-field NAME")


def _write(call: Call, members: list[Record], logits: list[float], *, scores: list[float], form: Form) -> int:
    """Best first, equals in the order of the input; how many were written."""
    order = sorted(range(len(members)), key=lambda i: -logits[i])[: form.k]
    if form.threshold is not None:
        order = [i for i in order if scores[i] >= form.threshold]
    lines = [form.line(members[i].index, scores[i], members[i]) for i in order]
    pipes.write_answer(call, b"".join(lines))
    return len(lines)
