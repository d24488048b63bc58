"""`rerank`: the same records, best first, as they came.

Owns groups of records, order, threshold and the forms of an answer. Knows nothing of models
(`toast/encoding/relevance.py`) or of descriptors (`toast/pipes.py`).
"""

from toast import pipes
from toast.encoding.relevance import Relevance
from toast.errors import BadInput, Exit, UsageError


class Form:
    """How answers are chosen and written: at most k of each query, at least `threshold`."""

    def __init__(self, k=None, threshold=None, scores=False, raw_scores=False, json=False, end=b"\n"):
        self.k, self.threshold, self.json, self.end = k, threshold, json, end
        self.scores, self.raw = scores or raw_scores, raw_scores

    def line(self, index, score, record) -> bytes:
        if self.json:
            own = {"index": index, "score": score, "text": record.text}
            return pipes.json_line({**(record.data or {}), **own})
        return (f"{score:.6f}\t".encode() if self.scores else b"") + record.raw + self.end


def rerank(call, records, scorer: Relevance, query, form: Form, long="best", group=None, query_field=None) -> int:
    """Records on standard output by descending relevance; Exit.NONE when nothing is written."""
    groups, written = _groups(call, records, query, group, query_field), 0
    with pipes.progress(call, sum(len(members) for _, members in groups)) as bar:
        for asked, members in groups:
            texts = [record.text for _, record in members]
            logits = []
            for start in range(0, len(texts), 256):
                logits += scorer.logits(asked, texts[start : start + 256], long)
                bar.update(len(texts[start : start + 256]))
            scores = logits if form.raw else [scorer.score(logit) for logit in logits]
            written += _write(call, members, logits, scores, form)
    if scorer.queries_cut:
        call.cut(f"{pipes.plural(scorer.queries_cut, 'query')} over the model's limit cut")
    if scorer.cut:
        note = f"{pipes.plural(scorer.cut, 'record')} over the model's limit"
        call.cut(f"{note} cut") if long == "truncate" else call.info(f"{note} scored in windows")
    return Exit.OK if written else Exit.NONE


def _groups(call, records, query, group, query_field):
    """[(query, [(index, record), ...])] in the order in which the groups begin."""
    if group is None and query_field is None:
        return [(_query(query), list(enumerate(records)))]
    groups = {}
    for index, record in enumerate(records):
        asked = query if query_field is None else record.data.get(query_field)
        key = asked if group is None else _key(record, group, index)
        groups.setdefault(key, (_query(asked, index), []))[1].append((index, record))
    return list(groups.values())


def _key(record, field, index):
    """What a record's group is known by: 1 and "1" are two."""
    import json

    if field not in record.data:
        raise BadInput(f"record {index + 1}: no field {field!r}", "--group NAME")
    return json.dumps(record.data[field], sort_keys=True)


def _query(query, index=None):
    if isinstance(query, str) and query.strip():
        return pipes.clean(query)
    if index is None:
        raise UsageError("the query is empty", 'rerank "QUERY" < records')
    raise BadInput(f"record {index + 1}: no query", "--query-field NAME")


def _write(call, members, logits, scores, form):
    """Best first, equals in the order of the input; how many were written."""
    order = sorted(range(len(members)), key=lambda i: -logits[i])[: form.k]
    if form.threshold is not None:
        order = [i for i in order if scores[i] >= form.threshold]
    lines = [form.line(members[i][0], scores[i], members[i][1]) for i in order]
    pipes.write_all(call.stdout, b"".join(lines))
    return len(lines)
