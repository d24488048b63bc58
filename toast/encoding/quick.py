"""Texts and pairs of them to tokens by a compiled vocabulary, cut as the tokenizers library cuts them.

Owns the library's template of a pair and its truncation, as far as one text is cut; two that are cut at once are left
to it. Does not know: the model's limit, batches.
"""

from __future__ import annotations

from toast.encoding.wordpiece import Encoding, Unsure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.store.mapped import Mapped

    Part = tuple[int | str, int]  # a token, or "A" or "B" for a text; its type
    Piece = tuple[int, tuple[int, int]]  # a token and its place

ALONE: list[Part] = [("A", 0)]  # a template with nothing around a text
CUT = {"only_first": 0, "only_second": 1}


class Row(Encoding):
    """What the library's Encoding says of a text or a pair of which a piece is here, and the further pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.overflowing: list[Row] = []  # type: ignore[assignment]


class Quick:
    """A compiled vocabulary with the methods of wordpiece.WordPiece."""

    shortens = False

    def __init__(self, core: Mapped) -> None:
        self.core, self.unknown, self.id = core, core.unknown, core.token_to_id
        self.cuts_at_blanks = core.cuts_at_blanks()

    def encode(
        self, texts: tuple[str, ...], *, special: bool = True, truncate: str | None = None, limit: int | None = None
    ) -> Any:
        """One text or two; special: with the tokens around them. Unsure where the library is needed."""
        if len(texts) == 1:
            found = self.core.encode(texts[0], add_special_tokens=special)
            if limit is None or len(found) <= limit:
                return found
            template = self._template(1, special=special)
            pieces = [_pieces(found, template)]
        else:
            template = self._template(2, special=special)
            pieces = [_pieces(self.core.encode(text, add_special_tokens=False), ALONE) for text in texts]
        over = 0 if limit is None else len(template) - len(texts) + sum(map(len, pieces)) - limit
        if over <= 0:
            return _row(template, pieces)
        cut = 0 if len(texts) == 1 else CUT.get(str(truncate), -1)
        size = len(pieces[cut]) - over
        if cut < 0 or cut >= len(texts) or size <= 0 or (len(texts) == 1 and truncate == "only_second"):
            raise Unsure
        whole, rows = pieces[cut], []
        for at in range(0, len(whole), size):
            pieces[cut] = whole[at : at + size]
            rows.append(_row(template, pieces))
        rows[0].overflowing = rows[1:]
        return rows[0]

    def sure(self, texts: tuple[str, ...], **how: Any) -> Any:
        """The same; None where the library is needed."""
        try:
            return self.encode(texts, **how)
        except Unsure:
            return None

    def _template(self, texts: int, *, special: bool) -> list[Part]:
        found = self.core.template(pair=texts > 1)
        if found is None:
            raise Unsure
        return [part for part in found if special or isinstance(part[0], str)]


def _pieces(found: Any, template: list[Part]) -> list[Piece]:
    """The tokens of a text without those that a template puts around it."""
    before = next(i for i, (part, _) in enumerate(template) if isinstance(part, str))
    end = len(found) - (len(template) - 1 - before)
    return list(zip(found.ids[before:end], found.offsets[before:end], strict=True))


def _row(template: list[Part], pieces: list[list[Piece]]) -> Row:
    found = Row()
    for part, kind in template:
        special = not isinstance(part, str)
        inner = [(part, (0, 0))] if special else pieces["AB".index(str(part))]
        found.add(((int(id), a, b) for id, (a, b) in inner), kind, special=special)
    return found
