"""Hits and how they are written: lines as grep's, JSON, paths or counts.

Knows nothing of colours (`paint.py`), of scoring or of where texts come from.
"""

from __future__ import annotations

import os

from embed import database
from embed.paint import Paint
from embed.schema import Damaged, damage
from toast import pipes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Protocol

    from embed.lines import Aim
    from embed.rank import Hit
    from embed.schema import Database
    from toast.command import Call

    Line = tuple[int, str]  # number, text
    Labelled = tuple[str, int, str]  # what stands before it, number, text

    class Source(Protocol):
        """The index that a chunk is in. shown: a path as it is there -> as it is told; allowed: the chunks that
        filters leave, None: all."""

        db: Database
        name: str
        shown: Callable[[str], str]
        allowed: set[int] | None


LONGEST = 200_000  # lines of a program that is parsed again


class Found:
    """A chunk that answers: its document's path, number, name and data, its lines, text and scores.

    index: the name of the file that it is in."""

    __slots__ = (
        "db",
        "index",
        "source",
        "chunk",
        "copied",
        "document",
        "start",
        "end",
        "text",
        "path",
        "number",
        "name",
        "data",
        "score",
        "cosine",
        "bm25",
        "first",
    )

    def __init__(self, source: Source, hit: Hit) -> None:
        """From a ranked chunk; Damaged, or another ValueError, when the index does not have it as it should."""
        self.source, self.db, self.index = source, source.db, source.name
        row = database.chunk(self.db, hit.chunk)
        if row is None:
            raise Damaged(f"no chunk {hit.chunk}")
        document, start, end, text, hash, path, number, name, data = row
        database.expect_chunk((hit.chunk, start, end, hash, text))
        if not (type(name) in (str, type(None)) and type(number) in (int, type(None))):
            raise Damaged(f"chunk {hit.chunk} is of no proper document")
        self.chunk, self.score, self.cosine, self.bm25, self.first = (
            hit.chunk,
            hit.score,
            hit.cosine,
            hit.bm25,
            hit.first,
        )
        self.document, self.start, self.end, self.text = document, start, end, text
        self.path, self.number, self.name = source.shown(database.named(path)), number, name
        self.data = database.fields(data)
        self.copied: list[Found] = []  # the same text in other indexes

    @property
    def content(self) -> tuple[str, str]:
        """What makes two hits copies: their text, and of records the fields."""
        return self.text, repr(self.data)

    def copies(self) -> list[dict[str, Any]]:
        """Where else the same text is."""
        return self._places(itself=False) + [place for other in self.copied for place in other._places()]

    def _places(self, *, itself: bool = True) -> list[dict[str, Any]]:
        found, allowed = [], self.source.allowed
        with damage(self.index, self.db):
            for row in database.copies(self.db, database.text_hash(self.text), self.text):
                chunk, document, path, start, number, name, data = row
                _check(start, "", name)
                beside = number is None or document != self.document
                if not (itself if chunk == self.chunk else beside) or allowed is not None and chunk not in allowed:
                    continue
                if database.fields(data) == self.data:
                    place = {"path": self.source.shown(database.named(path)), "start_line": start}
                    found.append(place if name is None else {"id": name, **place})
        return found

    def lines(self) -> list[Line]:
        """(number, text) of its lines; a record's all have its number."""
        rows = self.text.split("\n")
        return [(self.start if self.number is not None else self.start + i, row) for i, row in enumerate(rows)]

    def best(self, aim: Aim) -> Line:
        """The line that answers."""
        lines = self.lines()
        return lines[aim.best([text for _, text in lines], self.suffix)]

    def around(self, number: int, *, before: int, after: int) -> Iterable[Labelled]:
        """(label, number, text) of the lines near one of its lines, as far as the index has them."""
        first, last = max(number - before, 0), min(number + after, 1 << 62)
        with damage(self.index, self.db):
            if self.number is not None:
                return self._records(first, last)
            lines = self._file()
        # between chunks a file has blank lines alone
        inside = range(max(first, min(lines)), min(last, max(lines)) + 1)
        return ((self.path, n, lines.get(n, "")) for n in inside)

    def _records(self, first: int, last: int) -> list[Labelled]:
        """The same of the records beside it; of several with a number, the one that was indexed next to it."""
        found: dict[int, tuple[int, str, list[str]]] = {}
        near = database.records_near(self.db, self.document, first=first, last=last)
        for document, number, name, text in near:
            _check(number, text, name)
            owner, _, texts = found.setdefault(number, (document, self.path if name is None else name, []))
            if owner == document:
                texts += text.splitlines()
        return [(label, number, " ".join(texts)) for number, (_, label, texts) in found.items()]

    def _file(self) -> dict[int, str]:
        """Number -> text of every line of the document that the index has."""
        lines: dict[int, str] = {}
        for _, start, _, _, text in database.chunks_of(self.db, self.document):
            for i, row in enumerate(text.split("\n")):
                lines.setdefault(start + i, row)
        return lines

    def section(self) -> str:
        """What of a program it is: the path of names of its function or class, where that is known."""
        from embed.formats import code, suffix_of

        suffix = suffix_of(self.path)
        if self.number is not None or not code.is_known(suffix) or not code.is_there(suffix):
            return ""
        with damage(self.index, self.db):
            rows = self._file()
        text = "\n".join(rows.get(n, "") for n in range(1, max(rows) + 1)) if max(rows) < LONGEST else ""
        return code.name_at(code.sections(text, suffix), self.start - 1, self.end - 1)

    def is_entry(self) -> bool:
        """Whether it is of a log, whose entries have nothing to do with each other."""
        from embed import logs

        if self.number is not None or not logs.is_entry(self.text):
            return False
        from embed import chunk  # which compiles much: for what may be an entry alone

        return chunk.may_be_log(self.suffix)

    @property
    def suffix(self) -> str:
        """Of its file, without the dot."""
        return os.path.splitext(self.path)[1][1:].lower()

    def label(self) -> str:
        return self.name if self.name is not None else self.path


def _check(line: object, text: object, name: object = None) -> None:
    """Damaged when an index has something else where a line's number, text and name should be."""
    if not (type(line) is int and type(text) is str and type(name) in (str, type(None))):
        raise Damaged("a chunk is no text with a place")
    if not 0 <= line <= database.LAST_LINE:
        raise Damaged(f"a chunk begins in line {line}")


class Printer:
    """Writes hits in the form that was asked for.

    explain: with what the vector and the words gave. paths, count: each path once, with the number of its
    hits. before, after: lines around the best one. many: each line begins with the number of its query. grouped: a
    blank line comes between two groups, in JSON their number. color: as of Paint.
    """

    def __init__(
        self, call: Call, *, json: bool = False, scores: bool = False, explain: bool = False, paths: bool = False,
        count: bool = False, before: int = 0, after: int = 0, nul: bool = False, many: bool = False,
        grouped: bool = False, color: str = "auto",
    ) -> None:  # fmt: skip
        self.call, self.json, self.scores, self.explain, self.many = call, json, scores, explain, many
        self.paths, self.count, self.before, self.after = paths, count, before, after
        self.grouped, self.paint = grouped, Paint(call, color)
        self.end = self.paint.shown("\0" if nul else "\n")

    def print(self, number: int, hits: list[Found], aim: Aim) -> None:
        if self.call.quiet:  # the status is the answer
            return
        if self.json:
            out = pipes.for_reader(self.call.stdout, b"".join(self._json(number, hit, aim) for hit in hits))
        else:
            prefix = f"{number}:" if self.many else ""
            lines = self._summary(hits) if self.paths or self.count else self._lines(hits, aim)
            text = "".join(prefix + line + self.end for line in lines)
            out = (self.end * (self.grouped and number > 0) + text).encode("utf-8", "surrogateescape")
        pipes.write_all(self.call.stdout, out)

    def _json(self, number: int, hit: Found, aim: Aim) -> bytes:
        value = dict(hit.data)
        if hit.name is not None and str(value.get("id")) != hit.name:
            value["id"] = hit.name
        value |= {"path": hit.path, "start_line": hit.start, "end_line": hit.end}
        value |= {"line": hit.best(aim)[0], "score": hit.score, "text": hit.text}
        if section := hit.section():
            value["section"] = section
        if not self.grouped and (copies := hit.copies()):
            value["copies"] = copies
        if self.explain:
            value |= {"vector": hit.cosine, "lexical": hit.bm25}
        if self.many or self.grouped:
            value["query" if self.many else "group"] = number
        with damage(hit.index):
            return pipes.json_line(value)

    def _summary(self, hits: list[Found]) -> Iterator[str]:
        """Each path once, best first; with the number of its hits under -c."""
        counts: dict[str, list[Found]] = {}
        for hit in hits:
            counts.setdefault(hit.label(), []).append(hit)
        for label, found in counts.items():
            painted = self.paint.label(label, found[0].path)
            yield f"{painted}:{len(found)}" if self.count else painted

    def _lines(self, hits: list[Found], aim: Aim) -> Iterator[str]:
        for i, hit in enumerate(hits):
            number, text = hit.best(aim)
            score = self._score(hit)
            if self.before or self.after:
                if i:
                    yield "--"
                for label, n, line in hit.around(number, before=self.before, after=self.after):
                    shown = self.paint.matched(text, aim) if n == number else self.paint.shown(line)
                    mark = ":" if n == number else "-"
                    yield f"{score}{self.paint.label(label, hit.path)}{mark}{self.paint.number(n)}{mark}{shown}"
            else:
                taken = len(f"{score}{hit.label()}:{number}:".expandtabs())
                label = self.paint.label(hit.label(), hit.path)
                yield f"{score}{label}:{self.paint.number(number)}:{self.paint.line(text, aim, taken)}"

    def _score(self, hit: Found) -> str:
        if not (self.scores or self.explain):
            return ""
        parts = [f"{hit.score:.4f}"]
        if self.explain:
            named = (("vector", hit.cosine), ("lexical", hit.bm25))
            parts += [f"{name} {part:.4f}" for name, part in named if part is not None]
        return "\t".join(parts) + "\t"
