"""Sets of characters as sorted runs, and what the tokenizers library takes for a letter, a digit or a blank.

It is asked, rather than a table kept: its answers are the ones that count, and change with its version. Knows no
patterns.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Runs = tuple[tuple[int, int], ...]  # (first, after the last), sorted, apart

END = 0x110000
SURROGATES = (0xD800, 0xE000)
# what is not asked for one by one: ideographs, syllables, private and unassigned planes are all as their first
ALIKE = (
    (0x3400, 0x4DB6), (0x4E00, 0x9FA6), (0xAC00, 0xD7A4), (0xE000, 0xF900), (0x17000, 0x187ED), (0x20000, 0x2A6D7),
    (0x32400, 0xE0000), (0xE0200, 0xF0000), (0xF0000, 0xFFFFE), (0x100000, 0x10FFFE),
)  # fmt: skip


def runs(codes: Iterable[tuple[int, int]]) -> Runs:
    """Runs of any order, made one where they meet."""
    found: list[tuple[int, int]] = []
    for a, b in sorted(codes):
        if found and a <= found[-1][1]:
            found[-1] = found[-1][0], max(b, found[-1][1])
        elif a < b:
            found.append((a, b))
    return tuple(found)


def without(given: Runs) -> Runs:
    """All other characters."""
    edges = [0, *(edge for run in given for edge in run), END]
    return tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)


def both(a: Runs, b: Runs) -> Runs:
    """What is in both."""
    return without(runs([*without(a), *without(b)]))


def single(char: str) -> Runs:
    return ((ord(char), ord(char) + 1),)


@cache
def _asked() -> tuple[str, list[tuple[int, int]]]:
    """A text of the characters that the library is asked about, and the run that each piece of it stands for."""
    edges = sorted({edge for run in (*ALIKE, SURROGATES) for edge in run} | {0, END})
    pieces = [(a, b) for a, b in zip(edges, edges[1:], strict=False) if (a, b) != SURROGATES]
    return "".join(chr(a) if (a, b) in ALIKE else "".join(map(chr, range(a, b))) for a, b in pieces), pieces


@cache
def matched(pattern: str) -> Runs:
    """The characters that a pattern of one character matches, in the library's regular expressions."""
    from tokenizers import Regex, pre_tokenizers

    return _of(pre_tokenizers.Split(Regex(f"(?:{pattern})+"), "removed", invert=True))


@cache
def digits() -> Runs:
    """What the library's `Digits` takes for one."""
    from tokenizers import pre_tokenizers

    text, _ = _asked()
    whole = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str(text)
    return _placed([span for part, span in whole if len(part) == 1 and part.isnumeric()])


def _of(cutter: object) -> Runs:
    text, _ = _asked()
    return _placed([span for _, span in cutter.pre_tokenize_str(text)])  # type: ignore[attr-defined]


def _placed(spans: list[tuple[int, int]]) -> Runs:
    """Where parts of the text that was asked about are among all characters."""
    _, pieces = _asked()
    starts = [0]
    for a, b in pieces:
        starts.append(starts[-1] + (1 if (a, b) in ALIKE else b - a))
    found = []
    for start, stop in spans:
        k = bisect_right(starts, start) - 1
        while start < stop:
            a, b = pieces[k]
            end = min(stop, starts[k + 1])
            found.append((a, b) if (a, b) in ALIKE else (a + start - starts[k], a + end - starts[k]))
            start, k = end, k + 1
    return runs(found)


def table_of_bits(values: list[tuple[int, int, int]]) -> tuple[bytes, bytes]:
    """The same of bits, where runs may lie over each other."""
    found: dict[int, int] = {}
    long = [run for run in values if run[1] - run[0] > 1 << 15]  # these lie over no other
    for a, b, bits in values:
        for code in range(a, b) if (a, b, bits) not in long else ():
            found[code] = found.get(code, 0) | bits
    return table([*((code, code + 1, bits) for code, bits in found.items()), *long])


@cache
def punctuation() -> Runs:
    """What the library's `BertPreTokenizer` sets apart."""
    from tokenizers import pre_tokenizers

    return without(_of(pre_tokenizers.Punctuation("removed")))


@cache
def no_space() -> Runs:
    """What the library's `WhitespaceSplit` keeps."""
    from tokenizers import pre_tokenizers

    return _of(pre_tokenizers.WhitespaceSplit())


def table(values: list[tuple[int, int, int]]) -> tuple[bytes, bytes]:
    """(block of each 128 code points as u16, the blocks) of runs (first, after the last, value); 0 elsewhere."""
    from array import array

    flat = bytearray(END)
    for a, b, value in values:
        flat[a:b] = bytes([value]) * (b - a)
    blocks: dict[bytes, int] = {}
    first = array("H", (blocks.setdefault(bytes(flat[at : at + 128]), len(blocks)) for at in range(0, END, 128)))
    return first.tobytes(), b"".join(blocks)
