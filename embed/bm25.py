"""BM25 (Robertson & Zaragoza 2009) of the chunks that have words of a query, over all indexes searched together.

Owns what a word weighs. FTS5 finds the chunks and counts; words.py asks it. Knows nothing of vectors or fusion.
"""

from __future__ import annotations

import os
from functools import cached_property
from itertools import repeat
from math import log
from operator import add, mul

from embed import database, schema, words
from embed.schema import damage
from toast import kept
from toast.encoding import idf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from embed.schema import Database

    Scores = dict[int, float]  # chunk -> BM25

POSTINGS = 20_000  # rows that may be scored for a query: its common terms are left out beyond it
COMMON = 25  # a word in more than one of so many chunks, and over POSTINGS, tells too little apart
PRIOR = 100  # texts that what is expected of a word counts as: a small index knows little of words
K1, B = 1.2, 0.75  # FTS5's
PAIR = 0.08  # of the lesser weight of two words, where they stand side by side as in the query
VERBATIM = 0.25  # of all weights, where the whole query stands there
LEAST = 3  # words of such a query
SAYS_NOTHING = 0.5  # of texts that a word is in
PLACES = 10  # chunks that have it: where there are no more, they come first, as grep would have it
SYLLABLE = 3  # letters that a part of a compound word has at least: those of RhoA and vCJD are no words
NAMESAKES = 500  # chunks that have the query in their path or headings, above which it is no file's name
PART = 0.3  # of the weight of a word that the query has as part of a compound one (camelCase)


class Lexicon:
    """The words of one index. name: what a message calls it; count: its chunks; length: terms of a chunk, on average.

    DamagedIndex, with its name, where it is no whole one."""

    def __init__(self, db: Database, name: str) -> None:
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

    def rows(self, expression: str, held: int, length: float) -> tuple[Collection[int], Iterable[float]]:
        """Chunks, and how much of a word's weight each has, 0 to 1 + K1; held: in how many chunks the word is; length:
        of a chunk on average, over all indexes."""
        own = 1 / max(log((self.count - held + 0.5) / (held + 0.5)), 1e-6)  # FTS5's weight, undone
        if length == self.length:
            chunks, scores = words.bm25(self.db, expression)
            return chunks, map(mul, scores, repeat(own))
        rows = list(self._as_of(length, expression, own))
        return [chunk for chunk, _ in rows], [part for _, part in rows]

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
        self.sequence, self.alone = extractor.sequence(text), alone
        self.name = "" if len(text.split()) != 1 else text.strip().casefold().removeprefix("./")
        self.terms: dict[str, str] = {}  # stem -> the first word that has it
        for stem, word in self.sequence:
            self.terms.setdefault(stem, word)
        self.expected: dict[str, float] = {}  # word -> its share of texts before any is seen
        self.found = self._all_weighed(self.terms)
        self.parts = self._parts(extractor.compounds(text))
        self.weights = {stem: word.weight for stem, word in self.found.items()}
        self.ideal = sum(self.weights.values())

    @cached_property
    def kept(self) -> list[Word]:
        """What is looked up: words and runs of them. Not where weights alone are wanted, as of `--mode vector`."""
        kept = self._words()
        return kept + self.parts + self._phrases() if kept else self.parts

    def _all_weighed(self, terms: dict[str, str]) -> dict[str, Word]:
        self.expected |= idf.shares(terms.values())
        return {stem: self._weighed([word], self.expected[word]) for stem, word in terms.items()}

    def _parts(self, compounds: dict[str, list[tuple[str, str]]]) -> list[Word]:
        """The parts of compound words, beside them; of one that no chunk has, in its place."""
        beside: dict[str, Word] = {}
        for whole, parts in compounds.items():
            found = self._all_weighed({stem: word for stem, word in parts if stem not in self.found})
            if whole in self.found and not any(self.found[whole].held):
                del self.found[whole]
                self.found |= found
                continue
            if min(len(word) for _, word in parts) < SYLLABLE:
                continue
            for stem, word in found.items():
                word.weight *= PART
                beside.setdefault(stem, word)
        return [word for stem, word in beside.items() if stem not in self.found and 0 < sum(word.held) <= POSTINGS]

    def _weighed(self, run: list[str], expected: float = 0.0) -> Word:
        """A word, or several in a row; expected: its share of texts before any is seen."""
        expression = words.expression(run)
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

    @cached_property
    def whole(self) -> Word | None:
        """The whole query, if it is long enough to be looked for as it stands, and may be somewhere."""
        if len(self.sequence) < LEAST or not all(map(self._is_held, self.terms)):
            return None
        whole = self._weighed([word for _, word in self.sequence])
        whole.weight = VERBATIM * self.ideal
        return whole

    @cached_property
    def standing(self) -> Word | None:
        """The query word for word; a single word, as well, unless it says nothing (`the`)."""
        if self.whole or len(self.sequence) != 1 or not all(map(self._is_held, self.terms)):
            return self.whole
        [(stem, word)] = self.sequence
        return None if self.expected[word] > SAYS_NOTHING else self.found.get(stem)

    def verbatim(self, index: int) -> set[int]:
        """The chunks of an index that have the query word for word, where they are few in all."""
        lexicon, whole = self.lexicons[index], self.standing
        if not whole or not 0 < sum(whole.held) <= PLACES or not whole.held[index]:
            return set()
        with damage(lexicon.name, lexicon.db):
            return set(words.bm25(lexicon.db, whole.expression)[0])

    def named(self, index: int) -> set[int]:
        """The first chunk of each file that is called what the query says, with its suffix or without."""
        db = self.lexicons[index].db
        if not self.name or not self.sequence or schema.version_of(db) < 2:
            return set()
        with damage(self.lexicons[index].name, db):
            near = words.in_context(db, words.expression(word for _, word in self.sequence), NAMESAKES)
            if len(near) == NAMESAKES:
                return set()
            files = database.files_of(db, near)
            return {first for first, path in files if self.name in names_of(database.named(path))}

    def _phrases(self) -> list[Word]:
        """The pairs of words that are next to each other in the query, and all of it: where FTS5's positions of all of
        their words say so."""
        found = []
        run = [stem for stem, _ in self.sequence]
        for a, b in dict.fromkeys(zip(run, run[1:], strict=False)):
            if not (self._is_held(a) and self._is_held(b)):
                continue
            pair = self._weighed([self.terms[a], self.terms[b]])
            pair.weight = PAIR * min(self.weights[a], self.weights[b])
            found.append(pair)
        if self.whole:
            found.append(self.whole)
        return [word for word in found if 0 < sum(word.held) <= POSTINGS]

    def _is_held(self, stem: str) -> bool:
        return stem in self.found and any(self.found[stem].held)

    def scores(self, index: int) -> Scores:
        """The chunks of an index that have words of the query; nobody changes it."""
        lexicon = self.lexicons[index]
        asked = tuple((word.expression, word.weight, word.held[index]) for word in self.kept)
        return kept.of(
            lexicon.db.file,
            ("scores", asked, self.length),
            lambda: self._scores(index),
            size=lambda found: 200 * len(found),
        )

    def _scores(self, index: int) -> Scores:
        lexicon, found = self.lexicons[index], dict[int, float]()
        with damage(lexicon.name, lexicon.db):
            for word in self.kept:
                if word.held[index]:
                    chunks, parts = lexicon.rows(word.expression, word.held[index], self.length)
                    gains = map(mul, parts, repeat(word.weight))
                    found.update(zip(chunks, map(add, map(found.get, chunks, repeat(0.0)), gains), strict=True))
        # equal ones stay equal in any shard
        return dict(zip(found, map(round, found.values(), repeat(9)), strict=True))


def names_of(path: str) -> set[str]:
    """What a file is called by: its path, its name, both without suffix."""
    path = path.casefold().removeprefix("./")
    whole = {path, os.path.basename(path)}
    return whole | {os.path.splitext(name)[0] for name in whole}
