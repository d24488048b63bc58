"""The quick WordPiece tokenizer against the library, to the last offset, and what it leaves to it."""

import json
import os
import re
import shutil
import unicodedata
from functools import cache

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from threads import together
from tokenizers import Tokenizer
from unmeasured import unmeasured

from toast.encoding import tokens, wordpiece
from toast.encoding.tokens import Tokens
from toast.errors import BadModel

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
FOLDERS = [os.path.join(ORACLES, name) for name in ("bert-classifier", "bert-embed-mean")]
NORMALIZERS = [
    {"lowercase": True, "strip_accents": None, "handle_chinese_chars": True},
    {"lowercase": True, "strip_accents": False, "handle_chinese_chars": False},
    {"lowercase": False, "strip_accents": True, "handle_chinese_chars": True},
    {"lowercase": False, "strip_accents": None, "handle_chinese_chars": False},
]
EITHER = NORMALIZERS[0], NORMALIZERS[3]  # each option in both ways
CHARACTERS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
# words, what BERT sets apart or drops, what changes its length, and any character at all
TEXTS = st.lists(
    st.sampled_from(["the", "cat", "running", "UNAFFABLE", "été", "İ", "ß", "Σ", "ﬁ",
        "中文", "が", "한글", "é", "á̧", "กั", "[CLS]", "[MASK]", '"', "\\", "/", "\x00",
        "\x7f", "\xa0", "\u3000", "�", "\u2028", "##", "##s"])
    | st.characters(exclude_categories=["Cs"]) | st.text(max_size=8) | st.just(" "), max_size=20,
).map("".join)  # fmt: skip


def facts(encoding):
    return encoding.ids, encoding.type_ids, encoding.offsets, encoding.special_tokens_mask, list(encoding.overflowing)


def library(file):
    found = Tokenizer.from_file(file)
    found.no_padding()
    found.no_truncation()
    return found


@cache
def both(folder):
    file = os.path.join(folder, "tokenizer.json")
    return wordpiece.read(file), library(file)


def changed(folder, tmp_path, change):
    """A copy of a tokenizer.json after change(its object), as the library would write it."""
    with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as file:
        value = json.load(file)
    change(value)
    (tmp_path / "tokenizer.json").write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    return str(tmp_path)


@pytest.mark.parametrize("folder", FOLDERS)
@given(first=TEXTS, second=TEXTS, special=st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_text_and_pair(folder, first, second, special):
    quick, whole = both(folder)
    for whole_text, texts in ((first, (first,)), ((first, second), (first, second))):
        try:
            found = quick.encode(texts, special=special)
        except wordpiece.Unsure:
            continue
        assert facts(found) == facts(whole.encode_batch([whole_text], add_special_tokens=special)[0])


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=str)
def test_every_character(tmp_path, monkeypatch, normalizer):
    """All of Unicode with every option and without it, and with the options mixed all that is lowered or decomposed;
    the library's version may know more than Python's."""
    monkeypatch.setattr(wordpiece, "MOST", 1 << 30)
    quick, whole = both(changed(FOLDERS[0], tmp_path, lambda value: value["normalizer"].update(normalizer)))
    assert_same(quick, whole, [f"ca{c}t {c}s" for c in map(chr, range(256)) if sure(quick, c)])
    with unmeasured():
        parts = known() if normalizer in EITHER else fifties(c for part in known() for c in part if is_changed(c))
        texts = [" ".join(f"ca{c}t {c}s" for c in part) for part in parts]
        for start in range(0, len(texts), 200):
            assert_same(quick, whole, texts[start : start + 200])


def assert_same(quick, whole, texts):
    for text, expected in zip(texts, whole.encode_batch(texts), strict=True):
        assert facts(quick.encode((text,))) == facts(expected), ascii(text)


@cache
def known():
    """The characters that are not left to the library, whatever the normalizer, fifty for each text."""
    quick = both(FOLDERS[0])[0]
    found = [c for c in CHARACTERS if sure(quick, c)]
    assert len(found) > 200_000
    return fifties(found)


def fifties(characters):
    found = list(characters)
    return [found[at : at + 50] for at in range(0, len(found), 50)]


def is_changed(char):
    """Whether lowering a character or stripping its accents may change it."""
    return char.lower() != char or unicodedata.normalize("NFD", char) != char or unicodedata.category(char)[0] == "M"


def sure(quick, char):
    try:
        return quick.readings[char] is not None
    except wordpiece.Unsure:
        return False


@pytest.mark.model
def test_the_default_model(own_store):
    from toast.command import Call
    from toast.store import catalog

    call = Call("embed", {**os.environ, "TOAST_HOME": own_store["TOAST_HOME"] or ""}, os.open(".", os.O_RDONLY))
    quick, whole = both(catalog.obtain(call, "minilm"))
    with open(__file__, encoding="utf-8") as file:
        lines = [line for line in file.read().splitlines() if "[" not in line] + [
            'say "\\hello\\"',
            "naïve Größe",
            "a" * 100,
            "b" * 101,
            "1984-11-24",
        ]
    for line in lines:
        assert facts(quick.encode((line,))) == facts(whole.encode(line))


def test_what_is_left_to_the_library(tmp_path):
    def left(change):
        return wordpiece.read(os.path.join(changed(FOLDERS[0], tmp_path, change), "tokenizer.json")) is None

    assert not left(lambda v: None)
    assert left(lambda v: v["normalizer"].update(clean_text=False))
    assert left(lambda v: v["added_tokens"][0].update(normalized=True))
    assert left(lambda v: v["model"].update(unk_token="no such piece"))
    assert left(lambda v: v.update(pre_tokenizer={"type": "Whitespace"}))
    assert left(lambda v: v.update(post_processor=None))
    assert left(lambda v: v["model"].update(vocab={}))
    assert left(lambda v: v["model"]["vocab"].update({"\n": 9999}))
    assert wordpiece.read(os.path.join(ORACLES, "qwen3-causal", "tokenizer.json")) is None
    quick = both(FOLDERS[0])[0]
    for text in ("[CLS]", "e\u0301", "\ud800", "\U0001fae8"):
        with pytest.raises(wordpiece.Unsure):
            quick.encode((text,))


def test_laid_out_for_reading(tmp_path):
    library(os.path.join(FOLDERS[0], "tokenizer.json")).save(str(tmp_path / "tokenizer.json"), pretty=True)
    quick, whole = both(tmp_path)
    assert facts(quick.encode(("the cat",))) == facts(whole.encode("the cat"))


def test_the_library_is_loaded_only_for_more(tmp_path, monkeypatch):
    few = Tokens(FOLDERS[0], 24)
    short = ["the cat", ("a dog", "ran")]
    expected = [facts(e) for e in library(few.file).encode_batch(short)]
    assert [facts(e) for e in few.encode(short)] == expected and few._library is None
    assert few.encode(["cat " * 50])[0].overflowing and few._library is not None  # over the limit
    assert [facts(e) for e in few.encode(short)] == expected
    monkeypatch.setattr(tokens, "QUICK", 20)
    many = Tokens(FOLDERS[0], 24)
    for _ in range(3):
        assert [facts(e) for e in many.encode(["the cat"])] == expected[:1]
    assert many._library is not None
    assert few.id("[SEP]") == many.id("[SEP]") == Tokens(FOLDERS[0], 24).id("[SEP]")
    assert Tokens(FOLDERS[0], 24).id("nothinglikeit") is None


def test_words_that_nobody_knows_do_not_take_long(monkeypatch):
    monkeypatch.setattr(wordpiece, "MOST", 300)
    odd = Tokens(FOLDERS[0], 512)
    text = "the cat " + "qzxj" * 20 + " the cat"
    assert facts(odd.encode([text])[0]) == facts(library(odd.file).encode(text)) and odd._library is not None


def test_a_damaged_vocabulary(tmp_path):
    file = changed(tiny_folder(tmp_path), tmp_path, lambda v: v["model"]["vocab"].update(cat=-1)) + "/tokenizer.json"
    with pytest.raises(BadModel, match="tokenizer.json"):
        wordpiece.read(file).encode(("the cat",))
    os.truncate(file, os.path.getsize(file) - 1)
    with pytest.raises(BadModel, match="tokenizer.json"):
        Tokens(str(tmp_path), 24)


def tiny_folder(tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(tiny.bert(tmp_path / "made"), folder)
    return folder


# ---------------------------------------------------------------- the limit

TRUNCATED = [os.path.join(ORACLES, name) for name in ("bert-embed-mean", "roberta-nli", "qwen3-embed-last")]
STRATEGIES = ["longest_first", "only_first", "only_second", None]


@cache
def limited(folder):
    """Ours, which all uses share, and one of the library's own."""
    return Tokens(folder, 24), library(os.path.join(folder, "tokenizer.json"))


def alone(whole, inputs, *, special, truncate, limit):
    """What the library gives for one use of it."""
    whole.no_truncation()
    if truncate:
        whole.enable_truncation(limit, strategy=truncate)
    return all_facts(whole.encode_batch(inputs, add_special_tokens=special))


def all_facts(encodings):
    """Of each encoding, and of its further pieces in their order."""
    return [(*facts(e)[:4], all_facts(e.overflowing)) for e in encodings]


@pytest.mark.parametrize("folder", TRUNCATED)
@given(
    first=TEXTS, second=TEXTS, paired=st.booleans(), special=st.booleans(), truncate=st.sampled_from(STRATEGIES),
    limit=st.integers(6, 30),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_any_limit_and_strategy(folder, first, second, paired, special, truncate, limit):
    """A shared tokenizer cuts as one of the library's own that is told the limit alone, or refuses as it does."""
    ours, whole = limited(folder)
    inputs, options = [(first, second) if paired else first], {"special": special, "truncate": truncate}
    try:
        expected = alone(whole, inputs, limit=limit, **options)
    except Exception as error:  # only_first where the first is too short to be cut
        with pytest.raises(type(error), match=re.escape(str(error))):
            ours.encode(inputs, limit=limit, **options)
        return
    assert all_facts(ours.encode(inputs, limit=limit, **options)) == expected


def test_limits_of_others_at_the_same_time():
    """Four threads with other limits and strategies, on one tokenizer."""
    ours, whole = limited(TRUNCATED[0])
    pairs = [("cat dog " * 30, "the sky is blue " * 30)] * 9
    whole.no_truncation()
    most = len(whole.encode(*pairs[0]).ids)
    limits = dict(zip(STRATEGIES, (most // 4, most - 5, most - 9, 1), strict=True))
    options = [{"special": True, "truncate": strategy, "limit": limit} for strategy, limit in limits.items()]
    expected = [alone(whole, pairs, **one) for one in options]
    found = together(*[lambda one=one: [all_facts(ours.encode(pairs, **one)) for _ in range(20)] for one in options])
    assert found == [[one] * 20 for one in expected]
