"""Tokenizers against the reference ids in tests/oracles and, where TOAST_TEST_DATA names the folder,
against llama.cpp's and transformers.js's published cases."""

import glob
import json
import os
from functools import cache
from unittest import mock

import pytest
from command import command
from hypothesis import given, settings
from hypothesis import strategies as st

import toast.generation.tokenizer
from toast import tokenize
from toast.errors import BadInput, BadModel
from toast.generation.tokenizer import Detokenizer, Tokenizer
from toast.store import vocab
from toast.store.gguf import Gguf

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
FIXTURES = ["llama-causal", "qwen3-causal", "llama3-rope-causal"]
DATA = os.environ.get("TOAST_TEST_DATA", "")
needs_data = pytest.mark.skipif(not os.path.isdir(DATA), reason="TOAST_TEST_DATA is not set")


@cache
def tokenizer(name):
    return Tokenizer(os.path.join(ORACLES, name))


def facts(name, file="oracle.json"):
    with open(os.path.join(ORACLES, name, file), encoding="utf-8") as f:
        return json.load(f)


@pytest.mark.parametrize("name", FIXTURES)
def test_ids_and_text(name):
    for case in facts(name)["tokenizer_only"]["single"]:
        assert tokenizer(name).encode(case["text"], special=True, parse=True) == case["ids"]
        assert tokenizer(name).encode(case["text"], parse=True) == case["ids_no_special"]
        assert tokenizer(name).decode(case["ids"]) == case["decoded_skip_special"]


@pytest.mark.model
def test_default_model_ids(smollm2):
    default = Tokenizer(smollm2)
    for case in facts("smollm2", "tokenizer_oracle.json"):
        assert default.encode(case["text"], parse=True) == case["ids"]
        assert default.core.decode(case["ids"], skip_special_tokens=False) == case["text"]
    for chat in facts("smollm2", "chats_oracle.json"):
        assert default.encode(chat["rendered"], parse=True) == chat["prompt_ids"]
        assert default.decode(chat["greedy"]["ids"]) == chat["greedy"]["text"]


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize("name", FIXTURES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_streamed_pieces_are_the_decoded_whole(name, data):
    """Any ids: words, halves of characters, bytes that are no UTF-8."""
    t = tokenizer(name)
    ids = data.draw(st.lists(st.integers(0, t.core.get_vocab_size() - 1), max_size=40))
    stream = Detokenizer(t)
    pieces, whole = "".join([stream.add(i) for i in ids] + [stream.finish()]), t.decode(ids)
    # SentencePiece's byte tokens: one bad byte spoils the good ones beside it, which are out by then
    assert pieces == whole or (name == "llama-causal" and "\ufffd" in pieces and "\ufffd" in whole)


@pytest.mark.parametrize("name", FIXTURES)
def test_characters_come_whole(name):
    text = "né 東京 👩‍🚀 end"
    stream = Detokenizer(tokenizer(name))
    pieces = [stream.add(i) for i in tokenizer(name).encode(text)]
    assert "".join(pieces) == text and not any("\ufffd" in piece for piece in pieces)
    assert sum(map(bool, pieces)) > 5


def test_special_tokens_are_hidden_unless_kept():
    t = tokenizer("qwen3-causal")
    end = next(iter(t.special))
    assert Detokenizer(t).add(end) == ""
    assert Detokenizer(t, keep={end}).add(end) == t.core.id_to_token(end)


# ---------------------------------------------------------------- tokenize

TEXTS = st.text(st.sampled_from("abc de\n\t né東京👩‍🚀ﬁ1２3  "), max_size=60)


@pytest.mark.parametrize("name", FIXTURES)
@given(text=TEXTS, limit=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_cut_is_a_beginning_within_the_limit(name, text, limit):
    t = tokenizer(name)
    beginning = tokenize.cut(t, text, limit)
    assert text.startswith(beginning)
    assert len(t.encode(beginning)) <= limit
    if len(t.encode(text)) <= limit:
        assert beginning == text


@pytest.mark.parametrize("name", FIXTURES)
@given(text=TEXTS, limit=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_pieces_joined_are_the_text(name, text, limit):
    t = tokenizer(name)
    try:
        pieces = list(tokenize.split(t, text, limit))
    except BadInput:
        assert max(len(t.encode(c)) for c in text) > limit
        return
    assert "".join(text[a:b] for a, b, _ in pieces) == text
    assert all(len(t.encode(text[a:b])) == count <= limit for a, b, count in pieces)


class Source:
    """A text of which no more is given than is asked for."""

    def __init__(self, text):
        self.text, self.whole, self.given = text, False, 0

    def head(self, size):
        self.given, self.whole = min(size, len(self.text)), size >= len(self.text)
        return self.text[:size]


@pytest.mark.parametrize("name", FIXTURES)
@given(unit=TEXTS.filter(bool), limit=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_the_beginning_of_a_long_text_is_its_cut(name, unit, limit):
    t, text = tokenizer(name), (unit * 3000)[:3000]
    source = Source(text)
    found, length = tokenize.head(t, source, limit)
    assert found == tokenize.cut(t, text, limit) and length in (None, len(text))


@pytest.mark.parametrize("name", FIXTURES)
@given(lines=st.lists(st.text(st.sampled_from("abc .,12é\r \n\u2028"), max_size=12), max_size=20))
@settings(max_examples=150, deadline=None)
def test_pieces_of_a_long_text_are_encoded_as_the_whole(name, lines):
    t, text = tokenizer(name), "\n".join(lines)
    whole = t.core.encode(text, add_special_tokens=False)
    with mock.patch.object(toast.generation.tokenizer, "PIECE", 5):
        pieces = list(t.pieces(text))
        assert t.spans(text) == whole.offsets
    assert [i for _, piece in pieces for i in piece.ids] == whole.ids


@pytest.mark.parametrize("end", ["\n", "\n\n", "\r\n", "\r\n\r\n", " \n\n\n"])
def test_a_long_text_is_encoded_in_pieces(end):
    t = tokenizer("llama3-rope-causal")
    assert len(list(t.pieces(f"a cat sat.{end}" * 20000))) > 2


@pytest.mark.parametrize("form", [["--ids"], ["--max", "5"], ["--split", "4"], []])
def test_files_are_read_as_cat_would(form, tmp_path):
    """One text, whatever it is cut at: here within a character. Only --count tells of each."""
    whole = "a cat sat here, \u00e9t\u00e9, on a mat\n".encode()
    (tmp_path / "a").write_bytes(whole[:17])
    (tmp_path / "b").write_bytes(whole[17:])
    words = ["tokenize", "-m", os.path.join(ORACLES, "qwen3-causal"), *form]
    want = command(*words, stdin=whole)
    for names, stdin in ((["a", "b"], None), (["a", "-"], whole[17:])):
        found = command(*words, *names, stdin=stdin, cwd=tmp_path)
        assert (found.status, found.out, found.err) == (want.status, want.out, want.err)
    (tmp_path / "c").write_bytes(b"\xff")
    assert b"tokenize: c held 1 sequence of" in command(*words, "c", cwd=tmp_path).err
    assert b"tokenize: the text held 2 sequences of" in command(*words, "c", "c", cwd=tmp_path).err
    assert command(*words, "--no-input", cwd=tmp_path).ok().out == b""
    assert command(*words[:3], "--count", "--no-input").ok().out == b"0\n"


def test_tokens_have_their_place_in_the_text():
    text = "def f(x): é"
    found = tokenize.tokens(tokenizer("llama3-rope-causal"), text)
    assert [token["id"] for token in found] == tokenizer("llama3-rope-causal").encode(text)
    assert all(text[token["start"] : token["stop"]] == token["text"] for token in found)
    assert found[-1]["stop"] == len(text)


def test_unusable_tokenizers(tmp_path):
    with pytest.raises(BadModel, match="no tokenizer.json"):
        Tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadModel, match="tokenizer.json"):
        Tokenizer(str(tmp_path))


# ---------------------------------------------------------------- published cases


@cache
def from_gguf(name, **changes):
    from tokenizers import Tokenizer as Core

    meta = Gguf(os.path.join(DATA, f"tok/llamacpp-vocab/ggml-vocab-{name}.gguf")).metadata
    return Core.from_str(json.dumps(vocab.tokenizer_json(meta | changes)))


@needs_data
@pytest.mark.parametrize("name", ["gpt-2", "llama-spm", "bert-bge", "phi-3", "falcon", "starcoder"])
def test_llama_cpp_cases(name):
    path = os.path.join(DATA, f"tok/llamacpp-vocab/ggml-vocab-{name}.gguf")
    texts = open(f"{path}.inp", encoding="utf-8").read().split("\n__ggml_vocab_test__\n")
    wanted = [[int(i) for i in line.split()] for line in open(f"{path}.out").read().split("\n")]
    assert len(texts) == len(wanted) == 47
    for text, ids in zip(texts, wanted):
        assert from_gguf(name).encode(text, add_special_tokens=False).ids == ids, text
    ran = command("tokenize", "-m", path, "--ids", stdin=texts[-1].encode()).ok()
    assert [int(line) for line in ran.out.split()] == wanted[-1]


# the published tokenizer -> the vocabulary at hand that it shares
SHARED = {
    "Xenova/gpt2": "gpt-2",
    "openai-community/gpt2": "gpt-2",
    "Xenova/llama-tokenizer": "llama-spm",
    "tiiuae/falcon-7b": "falcon",
    "Xenova/bert-base-uncased": "bert-bge",
    "Xenova/distilbert-base-uncased-finetuned-sst-2-english": "bert-bge",
}


@needs_data
@pytest.mark.parametrize("published", SHARED)
def test_transformers_js_cases(published):
    cases = map(json.loads, open(glob.glob(os.path.join(DATA, "tok/*/vectors.jsonl"))[0], encoding="utf-8"))
    cases = [case for case in cases if case["tokenizer"] == published and not case.get("text_pair")]
    core = from_gguf(SHARED[published])
    for case in cases:
        assert core.encode(case["text"]).ids == case["ids"], case["text"]
    assert cases
