"""Makes toast/encoding/idf.txt of a text with a paragraph on each line: idf.py < wiki.test.raw > toast/encoding/idf.txt

The table in the package is of WikiText-2's raw test text (Merity et al. 2016, CC BY-SA 3.0).
"""

import math
import sys

from toast.encoding.idf import WORD

LEAST = 5  # paragraphs with a word, for it to be in the table


def make(lines):
    """The lines of idf.txt from a text with a paragraph on each line (WikiText's raw form)."""
    paragraphs, count = 0, {}
    for line in lines:
        if line.strip() and not line.startswith(" ="):  # not a heading
            paragraphs += 1
            for word in set(WORD.findall(line.replace("<unk>", " ").lower())):
                count[word] = count.get(word, 0) + 1
    levels = {f"{math.log((paragraphs + 1) / 2.5):.1f}": []}  # of a word seen twice
    for word, n in sorted(count.items(), key=lambda pair: (pair[1], pair[0])):
        if n >= LEAST:
            levels.setdefault(f"{math.log((paragraphs + 1) / (n + 0.5)):.1f}", []).append(word)
    yield f"# ln((N + 1) / (n + 0.5)), N = {paragraphs} paragraphs of WikiText-2 (test), n with the word"
    for idf, words in levels.items():
        yield " ".join([idf, *words])


if __name__ == "__main__":
    print("\n".join(make(sys.stdin)))
