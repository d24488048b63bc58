"""`classify --group K`: records in groups by what they are about, each with its words and its most typical record.

Owns spherical k-means (Dhillon & Modha 2001) from k-means++ starts (Arthur & Vassilvitskii 2007), and the words. The
same records get the same groups.
"""

from __future__ import annotations

from collections import Counter
from math import log

import numpy as np

from toast import pipes
from toast.cancel import checkpoint
from toast.encoding import idf
from toast.encoding.encoder import Encoder
from toast.errors import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call
    from toast.records import Record, Records

STARTS, STEPS = 4, 50
WORDS = 4  # of a group's name


def group(call: Call, records: Records, *, model: str, count: int, json: bool) -> int:
    """A line SIZE<TAB>WORDS<TAB>RECORD for each group, the largest first; with json an object with its members."""
    encoder = Encoder(call, model)
    kept: list[Record] = []
    parts, blank = [], 0
    with pipes.progress(call) as bar:
        for window in records.windows():
            own = [record for record in window if record.text.strip()]
            blank += len(window) - len(own)
            if own:
                parts.append(np.array(encoder.encode([record.text for record in own])))
                kept += own
            bar.update(len(window))
    if blank:
        call.warn(f"{pipes.plural(blank, 'record')} without text in no group")
    if encoder.cut:
        call.cut(f"{pipes.plural(encoder.cut, 'record')} over the model's limit cut")
    if not kept:
        return Exit.NONE
    vectors = np.concatenate(parts)
    owner, centers = cluster(vectors, count)
    shares = _Words(kept)
    for number in range(len(centers)):
        members = np.flatnonzero(owner == number)
        typical = kept[members[int(np.argmax(vectors[members] @ centers[number]))]]
        words = shares.of([int(i) for i in members])
        pipes.write_answer(call, _line(typical, [kept[i] for i in members], words, json=json, number=number))
    return Exit.OK


def _line(typical: Record, members: list[Record], words: list[str], *, json: bool, number: int) -> bytes:
    if not json:
        return f"{len(members)}\t{' '.join(words)}\t".encode() + typical.raw + b"\n"
    indices = [record.index for record in members]
    return pipes.json_line(
        {"group": number, "size": len(members), "words": words, "text": typical.text, "records": indices}
    )


# ---------------------------------------------------------------- k-means


def cluster(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(the group of each row (N,), centers (K, D)) of vectors (N, D) of length 1; the largest group is 0.

    The best of several starts; fewer than `count` where there are not so many different vectors."""
    rng = np.random.default_rng(0)
    found = max((_lloyd(vectors, _starts(vectors, count, rng)) for _ in range(STARTS)), key=lambda one: one[2])
    owner, centers, _ = found
    sizes = np.bincount(owner, minlength=len(centers))
    order = np.argsort(-sizes, kind="stable")[: int((sizes > 0).sum())]
    rank = np.empty(len(centers), int)
    rank[order] = np.arange(len(order))
    return rank[owner], centers[order]


def _starts(vectors: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: each next one at random, by its squared distance to those there are."""
    chosen = [int(rng.integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.maximum(1 - vectors @ vectors[chosen[-1]], 0).astype(np.float64))
        distance[distance < 1e-6] = 0
        total = distance.sum()
        if not total:
            break
        chosen.append(int(np.searchsorted(np.cumsum(distance), rng.random() * total, side="right")))
    return vectors[chosen]


def _lloyd(vectors: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(owners, centers, the sum of cosines to them)."""
    owner = np.full(len(vectors), -1)
    for _ in range(STEPS):
        checkpoint()
        similar = vectors @ centers.T
        now = similar.argmax(axis=1)
        if (now == owner).all():
            break
        owner = now
        sums = np.zeros_like(centers)
        np.add.at(sums, owner, vectors)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centers = np.where(lengths > 1e-9, sums / np.maximum(lengths, 1e-9), centers)
    return owner, centers, float(similar.max(axis=1).sum())


# ---------------------------------------------------------------- words


class _Words:
    """In how many of some records each word is."""

    def __init__(self, records: list[Record]) -> None:
        self.each = [{word.lower() for word in idf.WORD.findall(record.text)} for record in records]
        self.all = Counter(word for words in self.each for word in words)
        self.expected = idf.shares(self.all)

    def of(self, members: list[int]) -> list[str]:
        """The words of a group: in more of its records than of the others, or of any text; rare ones first. Where few
        records have none in common, those that are rarest in any text."""
        own = Counter(word for i in members for word in self.each[i] if not word.isdigit())
        scores = {}
        for word, count in own.items():
            share, usual = count / len(members), self.all[word] / len(self.each)
            share_of_any = max(self.expected[word], usual if len(members) < len(self.each) else 0.0)
            if count >= (2 if len(members) > 3 else 1) and share > share_of_any:
                scores[word] = share * log(share / share_of_any)
        scores = scores or {word: count * -log(self.expected[word]) for word, count in own.items()}
        return sorted(scores, key=lambda word: (-scores[word], word))[:WORDS]
