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
        self.step = 0.0  # seconds of a plain step, the least seen lately

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

    def took(self, seconds: float, guess: list[int], right: list[int]) -> None:
        """A step took this long; of its guess, if it had one, `right` came on top of its own token."""
        if not guess:
            self.step = min(seconds, self.step * 1.1) if self.step else seconds
            return
        self.length = min(MOST, self.length * 2) if len(right) + 1 == len(guess) else max(2, len(right) + 1)
        self.gain = min(self.gain + (1 + len(right)) * self.step - seconds, 8 * self.step)
        if self.gain < -self.step:
            self.silent, self.gain, self.pause = self.pause, 0.0, self.pause * 2
