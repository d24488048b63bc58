"""`tokenize`: text to token ids and back, counts, cuts and pieces.

Owns where a text may be cut so that no character is. Never loads weights.
"""

from __future__ import annotations

from toast import loaded, pipes, store
from toast.errors import BadInput, BadModel
from toast.generation.chat_template import Template
from toast.generation.tokenizer import Tokenizer
from toast.store import adapter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from toast.command import Call

    Spans = list[tuple[int, int]]  # (start, stop) of tokens, in characters


def tokenizer_for(call: Call, name: str) -> Tokenizer:
    """The tokenizer of a model's folder or GGUF file, or of an adapter that brings its own."""
    base, beside = adapter.resolve(call, name)
    folder = store.as_folder(call, base, weights=False)
    return loaded.at(adapter.wording(folder, *beside), _tokenizer)


def _tokenizer(folder: str) -> Tokenizer:
    try:
        return Tokenizer(folder, Template(folder).source or "")
    except BadModel:  # a broken template is no reason not to count
        return Tokenizer(folder)


def tokens(tokenizer: Tokenizer, text: str, *, special: bool = False) -> list[dict[str, Any]]:
    """{"id", "text", "start", "stop"} of every token; positions are in characters of the text.

    A character that takes several tokens is the text of each of them."""
    found = []
    for at, piece in [(0, tokenizer.core.encode(text))] if special else tokenizer.pieces(text):
        for i, (a, b) in zip(piece.ids, piece.offsets, strict=True):
            found.append({"id": i, "text": text[at + a : at + b], "start": at + a, "stop": at + b})
    return found


def ids_of(tokenizer: Tokenizer, text: str, *, special: bool = False) -> list[int]:
    """The ids of a text of any length; special: with the tokens around it."""
    if special:
        return tokenizer.encode(text, special=True, parse=True)
    return [i for _, piece in tokenizer.pieces(text) for i in piece.ids]


def cut(tokenizer: Tokenizer, text: str, limit: int) -> str:
    """The longest prefix of the text that ends with a token and encodes to at most `limit`."""
    spans = tokenizer.spans(text)
    return text if len(spans) <= limit else text[: _boundary(tokenizer, text, spans, limit=limit)]


def head(tokenizer: Tokenizer, source: pipes.Input, limit: int) -> tuple[str, int | None]:
    """(`cut` of a source's whole text, that text's length), of which no more is read than is needed.

    The length is None where not all was read: the first tokens of a window are those of the whole once
    a window twice as long has the same."""
    size = 16 * limit + 64
    before: Spans = []
    while True:
        text = source.head(size)
        if source.whole:
            return cut(tokenizer, text, limit), len(text)
        spans = tokenizer.spans(text)
        first = spans[: limit + 1]
        if len(first) > limit and first == before:
            return text[: _boundary(tokenizer, text, spans, limit=limit)], None
        size, before = 2 * size, first


def split(tokenizer: Tokenizer, text: str, limit: int) -> Iterator[tuple[int, int, int]]:
    """Pieces (start, stop, count) of at most `limit` tokens; joined they are the text.

    Raises BadInput when a single character takes more than `limit` tokens."""
    spans, first, at = tokenizer.spans(text), 0, 0
    while at < len(text):
        end = _boundary(tokenizer, text, spans, limit=limit, first=first, at=at)
        if end == at:
            end = _within(tokenizer, text, limit=limit, at=at)
        yield at, end, len(tokenizer.encode(text[at:end]))
        at = end
        while first < len(spans) and spans[first][1] <= at:
            first += 1


def _within(tokenizer: Tokenizer, text: str, *, limit: int, at: int) -> int:
    """Where text[at:] may end inside of a token."""
    stop = at
    while stop < len(text) and len(tokenizer.encode(text[at : stop + 1])) <= limit:
        stop += 1
    if stop == at:
        raise BadInput(f"{text[at]!r} alone is more than {pipes.plural(limit, 'token')}")
    return stop


def _boundary(tokenizer: Tokenizer, text: str, spans: Spans, *, limit: int, first: int = 0, at: int = 0) -> int:
    """Where text[at:] may end: after at most `limit` tokens, between characters, and so that it
    encodes to no more when it stands alone."""
    for last in range(min(first + limit, len(spans)), first, -1):
        stop = spans[last - 1][1] if last < len(spans) else len(text)
        between = last == len(spans) or spans[last][0] >= stop
        if between and len(tokenizer.encode(text[at:stop])) <= limit:
            return stop
    return at


# ---------------------------------------------------------------- the verb


def run(
    call: Call, model: str, form: str, *,
    files: list[str], limit: int = 0, special: bool = False, nul: bool = False,
) -> None:  # fmt: skip
    """Read files or standard input, write what `form` asks for: tokens, ids, count, decode, max or split.

    limit: tokens, of max and split; nul: ends of pieces; special: with the tokens around a text."""
    source, tokenizer = pipes.Input(call, files), tokenizer_for(call, model)
    if form == "count" and len(files) > 1:
        return _count_each(call, tokenizer, files, special=special)
    if form == "max":
        _write_head(call, tokenizer, source, limit=limit)
        source.warn()
        return
    text = source.all()
    source.warn()
    if form == "decode":
        pipes.write_answer(call, decode(tokenizer, text).encode())
    elif form == "split":
        for start, stop, count in split(tokenizer, text, limit):
            piece = {"text": text[start:stop], "start": start, "stop": stop, "tokens": count}
            pipes.write_answer(call, text[start:stop].encode() + b"\0" if nul else pipes.json_line(piece))
    elif form == "tokens":
        pipes.write_answer(call, b"".join(map(pipes.json_line, tokens(tokenizer, text, special=special))))
    else:
        ids = ids_of(tokenizer, text, special=special)
        lines = [len(ids)] if form == "count" else ids
        pipes.write_answer(call, "".join(f"{line}\n" for line in lines).encode())


def _count_each(call: Call, tokenizer: Tokenizer, files: list[str], *, special: bool) -> None:
    """COUNT<TAB>FILE of each file, and of them all: what `wc` and `du -c` tell, too."""
    total = 0
    for name in files:
        source = pipes.Input(call, [name])
        total += (count := len(ids_of(tokenizer, source.all(), special=special)))
        source.warn()
        pipes.write_answer(call, f"{count}\t{name}\n".encode("utf-8", "surrogateescape"))
    pipes.write_answer(call, f"{total}\ttotal\n".encode())


def _write_head(call: Call, tokenizer: Tokenizer, source: pipes.Input, *, limit: int) -> None:
    found, length = head(tokenizer, source, limit)
    pipes.write_answer(call, found.encode())
    if len(found) != length:
        of = "" if length is None else f" of {length}"
        call.cut(f"cut to {pipes.plural(limit, 'token')}: the first {len(found)}{of} characters fit")


def decode(tokenizer: Tokenizer, text: str) -> str:
    """The text of ids that are separated by blanks; special tokens are seen."""
    core = tokenizer.core
    try:
        ids = [int(word) for word in text.split()]
        unknown = next((i for i in set(ids) if core.id_to_token(i) is None), None)
    except (ValueError, OverflowError):
        raise BadInput("not token ids: numbers separated by blanks or line breaks") from None
    if unknown is not None:  # which tokenizers would leave out without a word
        raise BadInput(f"no token has the id {unknown}", "ids go with the model that made them: -m MODEL")
    return core.decode(ids, skip_special_tokens=False)
