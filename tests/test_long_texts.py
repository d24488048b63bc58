"""Long texts: what reads no more than it needs gives what reading all of it gives."""

import os
import subprocess
import sys

import pytest
import tiny
from command import BIN, command, environment
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from toast import long_words
from toast.encoding import tokens as encoding
from toast.encoding.tokens import Tokens
from toast.generation import tokenizer as generation

PROSE = [
    "the cat sat on the mat and the dog ran to the red bird",
    "a fast pipe, and a slow filter: naïve café!",
    "日本語 の text",
]
LIMIT = 12
WORDS = "the cat sat on a mat . , : ! ( [CLS] [MASK] <|end|> 日 本 の 🐱 é 1 \n \t \r\n \x07 \u0301 xx [ ] _ ＿"


def byte_bpe(regex):
    made = Tokenizer(models.BPE())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    made.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"), split]) if regex else split
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        PROSE * 9, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    made.add_special_tokens([AddedToken("<|end|>")])
    return made


def sentencepiece():
    """As Llama's: no pre-tokenizer, blanks are a letter, unknown characters are bytes."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.train_from_iterator(
        PROSE * 9, trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
    )
    return made


def unigram():
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    made.train_from_iterator(PROSE * 9, trainer)
    return made


KINDS = {
    "wordpiece": tiny.wordpiece, "byte-level BPE": lambda: byte_bpe(regex=True),
    "one word of bytes": lambda: byte_bpe(regex=False), "SentencePiece": sentencepiece, "Unigram": unigram,
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("kind")
    KINDS[request.param]().save(str(path / "tokenizer.json"))
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def small():
    """Every text of these tests is long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "HEAD", 100)
        patch.setattr(encoding, "NEAR", 30)
        patch.setattr(generation, "PIECE", 300)
        patch.setattr(long_words, "BLOCK", 128)
        yield


piece = st.one_of(
    st.sampled_from(WORDS.split(" ")),
    st.sampled_from([" ", "  ", "\n", "cat ", "x", "\u0301", "ж", "日", "-"]),
    st.text(max_size=4),
)
long_text = st.lists(
    st.builds(lambda part, times: part * times, piece, st.sampled_from([1, 1, 1, 2, 5, 40, 400, 1000])),
    min_size=1, max_size=14,
).map(lambda parts: " ".join(parts)[:2500] if len(parts) % 2 else "".join(parts)[:2500])  # fmt: skip


def clean(text):
    return text.encode("utf-8", "replace").decode()


@given(long_text.map(clean))
@settings(deadline=None, max_examples=40)
def test_the_ids_are_those_of_the_whole(folder, text):
    quick, library = Tokens(folder, LIMIT), Tokens(folder, LIMIT)
    library.quick = None
    for given_, truncate in (  # of two long texts the library makes pieces of pieces: minutes
        (text, "longest_first"), (("a cat", text), "only_second"), (("a cat", text), "longest_first"),
        ((text, "a cat"), "only_first")
    ):  # fmt: skip
        [slow] = library.encode([given_], truncate=truncate)
        for ours in (quick, library):
            [fast] = ours.encode([given_], truncate=truncate, whole=False)
            assert fast.ids == slow.ids and bool(fast.overflowing) == bool(slow.overflowing)
            assert fast.type_ids == slow.type_ids


@given(long_text.map(clean))
@settings(deadline=None, max_examples=40)
def test_shortened_texts_have_the_same_tokens(folder, text):
    ours = Tokens(folder, LIMIT)
    [whole] = ours.encode([text], truncate=None)
    assert ours.encode([ours.shortened(text)], truncate=None)[0].ids == whole.ids
    assert [e.ids for e in ours.encode([ours.shortened(text)])[0].overflowing] == [
        e.ids for e in ours.encode([text])[0].overflowing
    ]


@given(long_text.map(clean), st.integers(1, 30))
@settings(deadline=None, max_examples=30)
def test_the_first_tokens(folder, text, count):
    ours = generation.Tokenizer(folder)
    plain = generation.Tokenizer(folder)
    plain._shortens = False
    assert ours.encode(text) == plain.encode(text)
    assert ours.first(text, count) == plain.encode(text)[:count]
    assert ours.spans(text) == plain.spans(text)


@given(long_text.map(clean))
def test_places_in_the_whole(text):
    short = long_words.Shortened(text)
    assert short.place(len(short.text)) == len(text) and short.place(0) == 0
    assert all(short.text[at] == text[short.place(at)] for at in range(len(short.text)) if at not in short.ends)
    places = [short.place(at) for at in range(len(short.text) + 1)]
    assert places == sorted(set(places))


def test_what_is_made_shorter():
    for text, left in (
        ("x" * 9000, 2),
        ("ж" * 9000, 2),
        (" " * 9000, 2),
        ("日" * 9000, 0),
        ("x," * 4500, 0),
        ("_" * 9000, 0),
    ):
        found = long_words.Shortened(text)
        assert len(found.text) <= 128 * left + 128 if left else found.text == text
    assert not long_words.can_shorten(["[MASK]", "cat"]) and long_words.can_shorten(["[MASK]", "<s>", "</s>", "<|a|>"])


# ---------------------------------------------------------------- commands


def cost(name, *words, data):
    """(seconds of CPU, MB at most) of a command."""
    code = (
        "import resource, subprocess, sys\n"
        "ran = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "assert ran.returncode < 2  # 1: a text without a token has no label\n"
        "found = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(found.ru_utime + found.ru_stime, found.ru_maxrss / 1024)"
    )
    run = subprocess.run([sys.executable, "-c", code, os.path.join(BIN, name), *words], input=data, capture_output=True,
                         env=environment())  # fmt: skip
    assert run.returncode == 0, run.stderr
    return tuple(map(float, run.stdout.split()))


@pytest.mark.parametrize("kind", ["x", "ж", " ", "x,", "QUJD"])
@pytest.mark.parametrize(
    "command", ["embed --json", "rerank --long truncate cat", "classify --long truncate -l a,b", "tokenize --max 9"]
)
def test_ten_megabytes_cost_what_is_read(command, kind, model):
    name, *words = command.split()
    data = (kind * (10_000_000 // len(kind.encode()))).encode() + b"\n"
    _, before = cost(name, "-m", model, *words, data=b"a\n")
    seconds, memory = cost(name, "-m", model, *words, data=data)
    assert seconds < 1 and memory - before < 100  # 0.3 on a quiet machine; tokenised whole it takes 10 and 700


def test_what_is_cut_is_told_as_ever(model):
    for text, told in (("cat " * 9000, 1), ("x" * 90_000, 0), (" " * 90_000 + "cat", 0)):
        result = command("embed", "-m", model, "--json", stdin=text.encode() + b"\n").ok(quiet=not told)
        assert result.err.count(b"1 record over 24 tokens cut") == told
