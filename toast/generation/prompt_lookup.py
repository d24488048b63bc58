"""Guesses at what comes next, from what came before: prompt lookup (Saxena 2023).

Knows ids alone. Whether a guess was right is for `generate.py`, which never takes one that was not.
"""

NGRAM = 3  # tokens that must repeat before their continuation is guessed
MOST = 12  # tokens guessed at once
PAUSE = 64  # tokens without guesses after guesses that did not pay


class Drafter:
    """Guesses continuations of the ids so far, and stops for a while when that does not pay."""

    def __init__(self, ids):
        self.ids, self.places = list(ids), {}
        for end in range(NGRAM, len(self.ids)):
            self.places[tuple(self.ids[end - NGRAM : end])] = end
        self.length, self.silent, self.gain, self.pause = 4, 0, 0.0, PAUSE
        self.step, self.checked = 0.0, False  # seconds of a plain step; whether the last was a check

    def add(self, id: int) -> None:
        if len(self.ids) >= NGRAM:
            self.places[tuple(self.ids[-NGRAM:])] = len(self.ids)
        self.ids.append(id)
        self.silent = max(0, self.silent - 1)

    def guess(self) -> list[int]:
        """The ids that followed when the last NGRAM ids were seen before; at least two, or none."""
        if self.silent or not self.step:
            return []
        at = self.places.get(tuple(self.ids[-NGRAM:]))
        found = self.ids[at : at + self.length + 1] if at else []
        return found if len(found) > 1 else []

    def took(self, seconds: float, guess: list[int], right: int | None) -> None:
        """A step took this long. right: how many of its guess came on top of its own token; None:
        the guess was wrong from the start, or there was none."""
        checked, self.checked = self.checked, right is not None
        if not guess:
            if not checked:  # else this step's logits were there already
                self.step = 0.9 * self.step + 0.1 * min(seconds, 2 * self.step) if self.step else seconds
            return
        tokens = 1 if right is None else right + 2  # with the one whose logits the check has brought
        self.length = min(MOST, self.length * 2) if tokens == len(guess) + 1 else max(2, tokens - 1)
        self.gain = min(self.gain + tokens * self.step - seconds, 8 * self.step)
        if self.gain < -self.step:
            self.silent, self.gain, self.pause = self.pause, 0.0, self.pause * 2
