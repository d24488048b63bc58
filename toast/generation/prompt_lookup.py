"""Prompt lookup decoding (Saxena 2023): what followed the last tokens before is drafted again.

Knows ids alone. Whether a draft was right is for `generate.py` to verify, which takes no token that was not.
"""

from __future__ import annotations

NGRAM = 3  # tokens that must repeat before their continuation is drafted
MOST = 12  # tokens drafted at once
PAUSE = 64  # tokens without drafts after drafts that did not pay


class Drafter:
    """Drafts continuations of the ids so far, and stops for a while when that does not pay."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = list(ids)
        self.places = {tuple(self.ids[end - NGRAM : end]): end for end in range(NGRAM, len(self.ids))}
        self.length, self.silent, self.gain, self.pause = 4, 0, 0.0, PAUSE
        self.step, self.verified = 0.0, False  # seconds of a usual step; whether the last one verified a draft

    def add(self, id: int) -> None:
        """Note a token of the text."""
        if len(self.ids) >= NGRAM:
            self.places[tuple(self.ids[-NGRAM:])] = len(self.ids)
        self.ids.append(id)
        self.silent = max(0, self.silent - 1)

    def draft(self) -> list[int]:
        """The ids that followed when the last NGRAM ids were seen before; at least two, or none."""
        if self.silent or not self.step:
            return []
        at = self.places.get(tuple(self.ids[-NGRAM:]))
        found = self.ids[at : at + self.length + 1] if at else []
        return found if len(found) > 1 else []

    def learn(self, seconds: float, draft: list[int], accepted: int | None) -> None:
        """A step took this long. accepted: how many drafted tokens were right after the first; None: no draft was
        verified, or its first token was wrong."""
        verified, self.verified = self.verified, accepted is not None
        if not draft:
            if not verified:  # else this step's logits were there already
                self.step = 0.9 * self.step + 0.1 * min(seconds, 2 * self.step) if self.step else seconds
            return
        tokens = 1 if accepted is None else accepted + 2  # the first, and the bonus token of the verified rows
        self.length = min(MOST, self.length * 2) if tokens == len(draft) + 1 else max(2, tokens - 1)
        self.gain = min(self.gain + tokens * self.step - seconds, 8 * self.step)
        if self.gain < -self.step:
            self.silent, self.gain, self.pause = self.pause, 0.0, self.pause * 2
