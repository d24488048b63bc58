"""Compiled vocabularies against the tokenizers library: the same ids, places and decoded texts? And how fast.

vocabularies.py [--texts 300] [--speed FILE] FOLDER...   (each with a tokenizer.json)
Texts are random: of all Unicode, of scripts, code, emoji, marks, control tokens, blanks, long words. --speed: encode
FILE once by each, on one thread.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"

from tokenizers import Tokenizer  # noqa: E402

from toast.vocabulary import _ext  # noqa: E402
from toast.vocabulary.compile import Unknown, compiled  # noqa: E402

RANGES = [
    (0x20, 0x7F), (0x20, 0x7F), (0x20, 0x7F), (0, 0x20), (0x80, 0x250), (0x300, 0x370), (0x370, 0x600), (0x600, 0x700),
    (0x900, 0xE00), (0x1100, 0x1200), (0x2000, 0x2070), (0x2190, 0x2400), (0x3040, 0x3100), (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A4), (0xFB00, 0xFB10), (0xFE00, 0xFE10), (0xFF00, 0xFFF0), (0x1F300, 0x1FAFF), (0xE0020, 0xE0080),
    (0, 0xD800), (0xE000, 0x110000),
]  # fmt: skip
SNIPPETS = [
    "Hello world", "I'll we've DON'T it's 'S \u017ft 'L'l", "  def f(x):\n\t\treturn x + 1\r\n\r\n", "\n\n\n",
    "   ", " ", "\t", "12345678901234567890", "\u0661\u0662\u0663\u2163\u00bd", "caf\u00e9 cafe\u0301 n\u0303",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u4f60\u597d\u4e16\u754c", "\u3053\u3093\u306b\u3061\u306f",
    "\uc548\ub155\ud558\uc138\uc694", "\u0645\u0631\u062d\u0628\u0627", "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\u00a0\u2003\u3000", "a" * 200, "!?" * 40, "/path/to/file.py#L10", "\u2581\u2581a\u2581", "<0x0A>",
    "camelCaseHTTPServer", "\u01c5\u02b0", "\r\r\n", "\x00\x85", "\u2028", "x\u0338\u0327",
]  # fmt: skip


def texts(count, controls, seed=0):
    """Random texts."""
    pick = random.Random(seed)

    def part():
        kind = pick.random()
        if kind < 0.25:
            return pick.choice(SNIPPETS)
        if kind < 0.35 and controls:
            return pick.choice(controls)
        low, high = pick.choice(RANGES)
        chars = (chr(pick.randrange(low, high)) for _ in range(pick.choice([1, 2, 5, 20])))
        return "".join(c for c in chars if not 0xD800 <= ord(c) < 0xE000)

    for _ in range(count):
        yield "".join(part() for _ in range(pick.choice([1, 2, 4, 16])))
    yield from SNIPPETS
    yield from ["", "ab" * 5000, "\u4f60\u597d" * 3000, " " * 3000, "\n" * 2000, "0" * 3000, "-" * 3000]


def compare(library, vocabulary, settings, text):
    """What differs; None where the text is left to the library."""
    around = settings["before"], settings["after"], settings["trim"]
    found = vocabulary.encode(text, *around)
    if found is None:
        return None
    asked = library.encode(text)
    wrong = []
    if found.ids != asked.ids:
        wrong.append(("ids", found.ids, asked.ids))
    elif found.offsets != asked.offsets:
        wrong.append(("offsets", found.offsets, asked.offsets))
    if found.special_tokens_mask != asked.special_tokens_mask:
        wrong.append(("mask", found.special_tokens_mask, asked.special_tokens_mask))
    for skip in (False, True):
        ids = asked.ids[::-1] if skip else asked.ids
        if vocabulary.decode(ids, skip) != library.decode(ids, skip_special_tokens=skip):
            wrong.append(("decoded", vocabulary.decode(ids, skip), library.decode(ids, skip_special_tokens=skip)))
    return wrong


def check(name, library, vocabulary, count):
    settings = json.loads(vocabulary.settings)
    controls = [token.content for token in library.get_added_tokens_decoder().values()][-40:]
    left, bad, all_of_them = 0, 0, 0
    for text in texts(count, controls):
        all_of_them += 1
        wrong = compare(library, vocabulary, settings, text)
        if wrong is None:
            left += 1
        elif wrong:
            bad += 1
            if bad < 4:
                print(f"{name}: {text[:200]!r}\n   {str(wrong)[:700]}")
    print(f"{name}: {all_of_them} texts, {bad} differ, {left} left to the library")
    return bad


def speed(name, library, vocabulary, text):
    settings = json.loads(vocabulary.settings)
    start = time.process_time()
    found = vocabulary.encode(text, [], [], settings["trim"])
    middle = time.process_time()
    ids = found.ids if found is not None else None
    listed = time.process_time()
    pieces = text.splitlines(keepends=True)
    pieces = [
        "".join(pieces[i : i + 500]) for i in range(0, len(pieces), 500)
    ]  # the library's time for one text grows faster
    between = time.process_time()
    count = sum(len(library.encode(piece, add_special_tokens=False).ids) for piece in pieces)
    end = time.process_time()
    ours, theirs = listed - start, end - between
    print(
        f"{name}: {len(text.encode()) / 1e6:.1f} MB, ours {ours:.2f} s ({middle - start:.2f} without the list), "
        f"library {theirs:.2f} s: {theirs / ours:.1f} times; {len(ids) if ids else None} and {count} tokens"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--speed")
    args = parser.parse_args()
    bad = 0
    for folder in args.folders:
        path = os.path.join(folder, "tokenizer.json")
        library = Tokenizer.from_file(path)
        library.no_truncation()
        library.no_padding()
        try:
            form = compiled(library)
        except Unknown as error:
            print(f"{folder}: left to the library: {error}")
            continue
        with tempfile.NamedTemporaryFile() as out:
            out.write(form)
            out.flush()
            vocabulary = _ext.Vocabulary(out.name)
            bad += check(folder, library, vocabulary, args.texts)
            if args.speed:
                with open(args.speed, encoding="utf-8", errors="replace") as file:
                    speed(folder, library, vocabulary, file.read())
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
