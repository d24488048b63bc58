"""BM25 (Robertson & Zaragoza 2009) of the chunks that have words of a query, over all indexes searched together.

Owns what a word weighs. FTS5 finds the chunks and counts; words.py asks it. Knows nothing of vectors or fusion.
"""

from __future__ import annotations

from functools import cached_property
from math import log

from embed import words
from embed.schema import damage
from toast.encoding import idf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from sqlite3 import Connection

    Scores = dict[int, float]  # chunk -> BM25

POSTINGS = 20_000  # rows that may be scored for a query: its common terms are left out beyond it
COMMON = 25  # a word in more than one of so many chunks, and over POSTINGS, tells too little apart
PRIOR = 100  # texts that what is expected of a word counts as: a small index knows little of words
K1, B = 1.2, 0.75  # FTS5's
PAIR = 0.08  # of the lesser weight of two words, where they stand side by side as in the query
VERBATIM = 0.25  # of all weights, where the whole query stands there
LEAST = 3  # words of such a query


class Lexicon:
    """The words of one index. name: what a message calls it; count: its chunks; length: terms of a chunk, on average.

    DamagedIndex, with its name, where it is no whole one."""

    def __init__(self, db: Connection, name: str) -> None:
        self.db, self.name = db, name
        with damage(name, db):
            self.count, terms = words.totals(db)
            words.open_vocabulary(db)
        self.length = terms / max(self.count, 1)

    def matches(self, expression: str, limit: int) -> int:
        """In how many chunks an expression holds, counted no further than `limit`."""
        with damage(self.name, self.db):
            return words.matches(self.db, expression, limit)

    def frequency(self, stem: str) -> int:
        """In how many chunks a term is."""
        with damage(self.name, self.db):
            return words.frequency(self.db, stem) or 0

    def rows(self, expression: str, held: int, length: float) -> Iterator[tuple[int, float]]:
        """(chunk, how much of a word's weight it has), 0 to 1 + K1; held: in how many chunks the word is; length: of a
        chunk on average, over all indexes."""
        own = 1 / max(log((self.count - held + 0.5) / (held + 0.5)), 1e-6)  # FTS5's weight, undone
        if length == self.length:
            return ((chunk, score * own) for chunk, score in words.bm25(self.db, expression))
        return self._as_of(length, expression, own)

    def _as_of(self, length: float, expression: str, own: float) -> Iterator[tuple[int, float]]:
        for chunk, score, terms in words.bm25_and_lengths(self.db, expression):
            score *= own
            count = score * K1 * (1 - B + B * terms / self.length) / (1 + K1 - score)
            yield chunk, count * (1 + K1) / (count + K1 * (1 - B + B * terms / length))


class Word:
    """What is looked for: an FTS5 expression, in how many chunks of each index it is, and what it weighs."""

    def __init__(self, expression: str, held: list[int], weight: float) -> None:
        self.expression, self.held, self.weight = expression, held, weight


class Asked:
    """The words of a query over all indexes, rarest first, as far as POSTINGS go. weights: stem -> its word's weight;
    ideal: the score of a chunk of common length that has each once.

    alone: nothing else ranks, so that even of common words the rarest is asked for."""

    def __init__(
        self, text: str, lexicons: Sequence[Lexicon], extractor: words.TermExtractor, *, alone: bool = False
    ) -> None:
        self.lexicons = lexicons
        self.count = sum(lexicon.count for lexicon in lexicons)
        self.length = sum(x.count * x.length for x in lexicons) / max(self.count, 1)
        if len({x.length for x in lexicons}) == 1:
            self.length = lexicons[0].length  # to the bit
        self.common = max(POSTINGS, self.count // COMMON)
        self.terms, self.alone = extractor.terms(text), alone
        expected = idf.shares(self.terms.values())
        self.found = {stem: self._weighed([word], expected[word]) for stem, word in self.terms.items()}
        self.weights = {stem: word.weight for stem, word in self.found.items()}
        self.ideal = sum(self.weights.values())

    @cached_property
    def kept(self) -> list[Word]:
        """What is looked up: words and runs of them. Not where weights alone are wanted, as of `--mode vector`."""
        kept = self._words()
        return kept + self._phrases(self.terms) if kept and len(self.terms) > 1 else kept

    def _weighed(self, run: list[str], expected: float = 0.0) -> Word:
        """A word, or several in a row; expected: its share of texts before any is seen."""
        expression = '"' + " ".join(run).replace('"', '""') + '"'
        held = [lexicon.matches(expression, self.common + 1) for lexicon in self.lexicons]
        count = sum(held) + PRIOR * expected
        return Word(expression, held, log(1 + (self.count + PRIOR - count + 0.5) / (count + 0.5)))

    def _words(self) -> list[Word]:
        kept: list[Word] = []
        rows = 0
        for word in sorted(self.found.values(), key=lambda word: (sum(word.held), word.expression)):
            rows += sum(word.held)
            if rows > POSTINGS and kept or sum(word.held) > self.common:
                break
            kept += [word] * any(word.held)
        if not kept and rows and self.alone:
            kept = [self.found[min(self.found, key=lambda stem: (self._frequency(stem), stem))]]
        return kept

    def _frequency(self, stem: str) -> int:
        """In how many chunks a term is; a term in none comes last."""
        return sum(lexicon.frequency(stem) for lexicon in self.lexicons) or self.count + 1

    def _phrases(self, terms: dict[str, str]) -> list[Word]:
        """The pairs of words that are next to each other in the query, and all of it."""
        found = []
        for (a, first), (b, second) in zip(terms.items(), list(terms.items())[1:], strict=False):
            pair = self._weighed([first, second])
            pair.weight = PAIR * min(self.weights[a], self.weights[b])
            found.append(pair)
        if len(terms) >= LEAST:
            whole = self._weighed(list(terms.values()))
            whole.weight = VERBATIM * self.ideal
            found.append(whole)
        return [word for word in found if 0 < sum(word.held) <= POSTINGS]

    def scores(self, index: int) -> Scores:
        """The chunks of an index that have words of the query."""
        lexicon, found = self.lexicons[index], dict[int, float]()
        with damage(lexicon.name, lexicon.db):
            for word in self.kept:
                if word.held[index]:
                    for chunk, part in lexicon.rows(word.expression, word.held[index], self.length):
                        found[chunk] = found.get(chunk, 0.0) + part * word.weight
        return {chunk: round(score, 9) for chunk, score in found.items()}  # equal ones stay equal in any shard
