"""`classify --next N`: which records to label next, the uncertain and unlike ones.

Owns the choice: uncertainty by the margin between the best two labels (Scheffer et al. 2001), spread by the distance
to what is chosen already. Knows nothing of models.
"""

from __future__ import annotations

from heapq import nlargest

import numpy as np

from rerank.classify import carried, tell_long
from toast import pipes
from toast.errors import Exit, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rerank.classify import Form
    from toast.command import Call
    from toast.records import Record, Records

POOL = 50  # uncertain records that are looked at for each one that is chosen
LEAST = 1000  # of them, at least


def choose(call: Call, records: Records, engine: Any, *, count: int, form: Form) -> int:
    """Write the records, as they came, the most telling first; Exit.NONE when there are none."""
    if not engine.labels:
        raise UsageError(f"{engine.name} gives a score and no labels", "--next is of labels")
    pool: list[tuple[float, int, Record, list[float]]] = []  # uncertainty, the later the smaller, record, scores
    most = max(LEAST, POOL * count)
    with pipes.progress(call) as bar:
        for window in records.windows():
            found = zip(*records.answered(window, engine.probabilities), strict=True)
            pool += [(doubt(row, many=engine.multi), -record.index, record, row) for record, row in found if row]
            pool = nlargest(most, pool, key=lambda one: one[:2])
            bar.update(len(window))
    tell_long(call, engine)
    if not pool:
        return Exit.NONE
    vectors = _vectors(engine, pool)
    for i in spread(np.array([one[0] for one in pool]), vectors, count):
        pipes.write_answer(call, _line(pool[i][2], pool[i][3], engine.labels, form=form))
    return Exit.OK


def doubt(row: list[float], *, many: bool) -> float:
    """How uncertain the scores of a text are, from 0 to 1: the two best are alike, or a label is as likely as not."""
    if many or len(row) < 2:
        return max(1 - abs(2 * score - 1) for score in row)
    second, first = sorted(row)[-2:]
    return 1 - (first - second)


def spread(doubts: np.ndarray, vectors: np.ndarray, count: int) -> list[int]:
    """Indices, best first: each has the most doubt x distance to the next one that is chosen. vectors: of length 1."""
    chosen: list[int] = []
    distance = np.ones(len(doubts))
    worth = np.maximum(doubts, 1e-6)
    for _ in range(min(count, len(doubts))):
        score = worth * distance
        score[chosen] = -1
        chosen.append(int(np.argmax(score)))
        distance = np.minimum(distance, np.maximum(1 - vectors @ vectors[chosen[-1]], 0))
    return chosen


def _vectors(engine: Any, pool: list[Any]) -> np.ndarray:
    """Of length 1: the embedder's, where the engine has one, else the scores."""
    encoder = getattr(engine, "encoder", None)
    if encoder is not None:
        return np.array(encoder.encode([one[2].text for one in pool]))
    scores = np.array([one[3] for one in pool])
    return scores / np.maximum(np.linalg.norm(scores, axis=1, keepdims=True), 1e-12)


def _line(record: Record, row: list[float], labels: list[str], *, form: Form) -> bytes:
    if not form.json:
        return record.raw + form.end
    best = max(range(len(row)), key=lambda i: row[i])
    own = {"label": labels[best], "score": row[best], "text": record.text}
    return pipes.json_line({**carried(record.data or {}), **form.number(record), **own})
