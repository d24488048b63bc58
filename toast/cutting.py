"""`--long truncate`: what is kept of the texts of a prompt that is over the model's context.

Owns which texts are cut, and where. Knows nothing of what is asked of them (`question.py`).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from toast.command import Call
    from toast.generation.engine import Engine

    Prompt = Callable[[list[str]], tuple[str, list[int]]]  # of texts: (what the model reads, its ids)


class Part:
    """A text and its tokens. Of one that is far too long only those of its ends are known, as many at each.

    name: what a message calls it. window: characters for each token of the context that are looked at."""

    def __init__(self, engine: Engine, name: str, text: str, *, window: int) -> None:
        self.name, self.text, size = name, text, engine.context * window // 2
        self.whole = len(text) <= 2 * size
        if self.whole:
            self.spans = engine.tokenizer.spans(text)
        else:
            head, tail = (engine.tokenizer.spans(part) for part in (text[:size], text[-size:]))
            count, before = min(len(head), len(tail)), len(text) - size
            self.spans = head[:count] + [(before + a, before + b) for a, b in tail[len(tail) - count :]]
        self.most = max(0, len(self.spans) - (not self.whole))

    def ends(self, count: int) -> str:
        """So many of its tokens, as many from its beginning as from its end."""
        if count == len(self.spans):
            return self.text
        if not self.spans:
            return ""
        head, tail = count // 2, count - count // 2
        return self.text[: self.spans[head][0]] + (self.text[self.spans[-tail][0] :] if tail else "")

    def told(self, count: int, left: str) -> str:
        """What was cut, where `left` of so many tokens is left."""
        size, unit = len(self.text), "characters"
        gone = size - len(left)
        if self.whole:
            size, gone, unit = len(self.spans), len(self.spans) - count, "tokens"
        return f"cut {gone} of {size} {unit} from the middle of {self.name}"


def fit(
    call: Call, engine: Engine, parts: list[Part], *, prompt: Prompt, hint: str
) -> tuple[str, list[int], list[str]]:  # fmt: skip
    """(prompt, ids, texts) of the parts that are cut to three quarters of the context; each cut is told.

    BadInput, with what to type, where what cannot be cut is longer than that."""
    most = engine.context * 3 // 4
    _, ids = prompt([""] * len(parts))
    room = most - len(ids)
    while room >= 0:
        counts = shares([part.most for part in parts], room)
        texts = [part.ends(count) for part, count in zip(parts, counts, strict=True)]
        found, ids = prompt(texts)
        if len(ids) <= most:
            for part, count, text in zip(parts, counts, texts, strict=True):
                if text is not part.text:
                    call.cut(part.told(count, text))
            return found, ids, texts
        room -= len(ids) - most  # a cut may make its neighbours encode to more
    raise engine.too_long(len(ids), hint)


def shares(sizes: list[int], room: int) -> list[int]:
    """What each of these gets of `room`: all of its size, or as much as any other."""
    found = [0] * len(sizes)
    for done, i in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        found[i] = min(sizes[i], room // (len(sizes) - done))
        room -= found[i]
    return found
