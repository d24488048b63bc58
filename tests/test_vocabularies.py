"""Vocabularies in every form that models come with, against the ids of the libraries that they are made for."""

import json
import os
import shutil

import pytest
import tiny
from command import command
from tokenizers import Regex, pre_tokenizers

from toast.errors import BadModel
from toast.generation.tokenizer import Tokenizer
from toast.store import vocab, vocabularies
from toast.store.folder import write_texts
from toast.store.pretokenizers import CHARACTERS, PRE
from toast.store.sentencepiece import UNIGRAM, Model

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "vocabularies")
NAMES = sorted(os.listdir(FOLDER))


def oracle(name):
    with open(os.path.join(FOLDER, name, "oracle.json"), encoding="utf-8") as file:
        return json.load(file)


def tokenizer(name, tmp_path):
    """The tokenizer that is made of a fixture."""
    folder = os.path.join(FOLDER, name)
    document = vocabularies.tokenizer_json(folder, vocabularies.source(folder))
    write_texts(str(tmp_path), {"tokenizer.json": document})
    return Tokenizer(str(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_ids(name, tmp_path):
    made, facts = tokenizer(name, tmp_path), oracle(name)
    for case in facts["cases"]:
        assert made.encode(case["text"], special=facts.get("special", False)) == case["ids"], case["text"]


@pytest.mark.parametrize("name", ["sentencepiece-bpe", "tiktoken-qwen", "tekken", "wordpiece", "bytes-gpt2"])
def test_commands_take_such_folders_as_they_are(name, tmp_path):
    shutil.copytree(os.path.join(FOLDER, name), tmp_path / "m")
    env, case = {"TOAST_HOME": tmp_path / "home"}, oracle(name)["cases"][2]
    first = command("tokenize", "-m", tmp_path / "m", stdin=case["text"].encode(), env=env).ok()
    assert len(os.listdir(tmp_path / "home" / "tokenizers")) == 1
    found = [json.loads(line)["id"] for line in first.out.splitlines()]
    assert found == case["ids"] or found == case["ids"][1:] or found == case["ids"][1:-1]  # without what is put around
    again = command("tokenize", "-m", tmp_path / "m", stdin=case["text"].encode(), env=env).ok()
    assert again.out == first.out and sorted(os.listdir(tmp_path / "m")) == sorted(
        os.listdir(os.path.join(FOLDER, name))
    )


def test_a_changed_vocabulary_is_converted_anew(tmp_path):
    shutil.copytree(os.path.join(FOLDER, "wordpiece"), tmp_path / "m")
    env = {"TOAST_HOME": tmp_path / "home"}
    command("tokenize", "-m", tmp_path / "m", "--count", stdin=b"hello", env=env).ok(quiet=False)
    [made] = os.listdir(tmp_path / "home" / "tokenizers")
    with open(tmp_path / "m" / "vocab.txt", "a", encoding="utf-8") as file:
        file.write("hello\n")
    assert command("tokenize", "-m", tmp_path / "m", "--count", stdin=b"hello", env=env).ok(quiet=False).out == b"1\n"
    [other] = os.listdir(tmp_path / "home" / "tokenizers")
    assert made != other


def test_what_is_converted_goes_with_the_folder(tmp_path):
    shutil.copytree(os.path.join(FOLDER, "wordpiece"), tmp_path / "m")
    env = {"TOAST_HOME": tmp_path / "home"}
    command("tokenize", "-m", tmp_path / "m", "--count", stdin=b"hello", env=env).ok(quiet=False)
    kept = shutil.copy(tmp_path / "m" / "vocab.txt", tmp_path)
    shutil.rmtree(tmp_path / "m")
    command("model", "rm", env=env).ok(quiet=False)
    assert not os.path.exists(tmp_path / "home" / "tokenizers") and os.path.exists(kept)


def test_an_embedder_whose_vocabulary_is_a_list(tmp_path):
    """The transformer stands in a folder of its own, as older sentence-transformers wrote it."""
    tiny.bert(tmp_path / "whole")
    with open(tmp_path / "whole" / "tokenizer.json", encoding="utf-8") as file:
        pieces = json.load(file)["model"]["vocab"]
    want = command("embed", "-m", tmp_path / "whole", "--raw", stdin=b"the cat sat\n").ok().out
    inner = tmp_path / "m" / "0_Transformer"
    os.makedirs(inner)
    for name in ("config.json", "model.safetensors", "sentence_bert_config.json"):
        shutil.copy(tmp_path / "whole" / name, inner)
    shutil.copytree(tmp_path / "whole" / "1_Pooling", tmp_path / "m" / "1_Pooling")
    modules = json.loads((tmp_path / "whole" / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (tmp_path / "m" / "modules.json").write_text(json.dumps(modules))
    (inner / "vocab.txt").write_text("\n".join(sorted(pieces, key=pieces.get)) + "\n")
    env = {"TOAST_HOME": tmp_path / "home"}
    assert command("embed", "-m", tmp_path / "m", "--raw", stdin=b"the cat sat\n", env=env).ok(quiet=False).out == want


DAMAGES = [
    ("sentencepiece-bpe", b""), ("sentencepiece-bpe", b"\xff" * 40), ("sentencepiece-bpe", b"\n\xff\xff\xff\x7fa"),
    ("tekken", b"[]"), ("tekken", b"{}"), ("tekken", b"{"),
    ("tiktoken-qwen", b"IQ== 0\nIQ== x\n"), ("tiktoken-qwen", b"IQ== 0\nIg== 0\n"), ("wordpiece", b"a\nb\n"),
    ("bytes-gpt2", b"[1]"), ("bytes-gpt2", b'{"a": "b"}'),
]  # fmt: skip


@pytest.mark.parametrize("name, data", DAMAGES)
def test_damaged_vocabularies(name, data, tmp_path):
    shutil.copytree(os.path.join(FOLDER, name), tmp_path / "m")
    file = vocabularies.source(str(tmp_path / "m"))
    (tmp_path / "m" / file).write_bytes(data)
    env = {"TOAST_HOME": tmp_path / "home"}
    command("tokenize", "-m", tmp_path / "m", stdin=b"hello", env=env).fails(str(tmp_path / "m"))


def test_a_pattern_that_is_not_known(tmp_path):
    shutil.copytree(os.path.join(FOLDER, "tiktoken-qwen"), tmp_path / "m")
    os.rename(tmp_path / "m" / "qwen.tiktoken", tmp_path / "m" / "other.tiktoken")
    (tmp_path / "m" / "config.json").write_text('{"model_type": "other"}')
    with pytest.raises(BadModel, match="pattern"):
        vocabularies.tokenizer_json(str(tmp_path / "m"), "other.tiktoken")


def test_settings_of_the_folder_win(tmp_path):
    shutil.copytree(os.path.join(FOLDER, "sentencepiece-bpe"), tmp_path / "m")
    settings = {"add_bos_token": False, "add_eos_token": True, "eos_token": {"content": "<end>"},
                "added_tokens_decoder": {"2": {"content": "<end>", "special": True}}}  # fmt: skip
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "m" / "added_tokens.json").write_text('{"<more>": 500}')
    document = vocabularies.tokenizer_json(str(tmp_path / "m"), "tokenizer.model")
    write_texts(str(tmp_path), {"tokenizer.json": document})
    made = Tokenizer(str(tmp_path))
    assert made.encode("a", special=True)[-1] == 2 and made.encode("a<more>", parse=True)[-1] == 500


def test_control_tokens_have_the_ids_that_their_files_give(tmp_path):
    """Behind the ranks, with a gap, and before them; among pieces, and behind them."""
    for name, text, id in (
        ("tiktoken-llama", "<|eot_id|>", 128009), ("tiktoken-cl100k", "<|endofprompt|>", 100276),
        ("tiktoken-qwen", "<|im_end|>", 151645), ("tekken", "</s>", 2), ("tekken", "[INST]", 3),
        ("sentencepiece-bpe", "</s>", 2), ("sentencepiece-t5", "<extra_id_0>", 549),
        ("sentencepiece-xlm-roberta", "<mask>", 451),
    ):  # fmt: skip
        assert tokenizer(name, tmp_path).encode(text, parse=True) == [id], (name, text)


# ---------------------------------------------------------------- the same in GGUF's metadata


def ranked(name, pre, *, merges=True):
    """A GGUF file's metadata for a vocabulary of ranks."""
    folder = os.path.join(FOLDER, name)
    document = vocabularies.tokenizer_json(folder, vocabularies.source(folder))
    ids = document["model"]["vocab"]
    meta = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": [text for text, id in sorted(ids.items(), key=lambda pair: pair[1])]}  # fmt: skip
    return meta | ({"tokenizer.ggml.merges": [" ".join(p) for p in document["model"]["merges"]]} if merges else {})


def of_gguf(meta, tmp_path):
    write_texts(str(tmp_path), {"tokenizer.json": vocab.tokenizer_json(meta)})
    return Tokenizer(str(tmp_path))


@pytest.mark.parametrize("name, pre, merges", [
    ("tiktoken-kimi", "kimi-k2", True), ("tiktoken-kimi", "kimi-k2", False), ("tiktoken-o200k", "gpt-4o", True),
    ("tiktoken-llama", "llama-bpe", True), ("tiktoken-llama", "glm4", True),
])  # fmt: skip
def test_ids_of_ranks_in_gguf(name, pre, merges, tmp_path):
    # control tokens, whose ids leave a gap, would move others in a list
    made = of_gguf({**ranked("tiktoken-kimi", pre, merges=merges)}, tmp_path)
    for case in oracle(name)["cases"]:
        assert made.encode(case["text"]) == case["ids"], case["text"]


@pytest.mark.parametrize("name", ["sentencepiece-bpe", "sentencepiece-t5", "sentencepiece-unigram"])
def test_ids_of_pieces_in_gguf(name, tmp_path):
    folder = os.path.join(FOLDER, name)
    with open(os.path.join(folder, vocabularies.source(folder)), "rb") as file:
        model = Model(file.read())
    texts, scores, types = zip(*model.pieces, strict=True)
    unigram = model.kind == UNIGRAM
    meta = {
        "tokenizer.ggml.model": "t5" if unigram else "llama", "tokenizer.ggml.tokens": list(texts),
        "tokenizer.ggml.scores": list(scores), "tokenizer.ggml.token_type": list(types),
        "tokenizer.ggml.unknown_token_id": model.unknown,
        "tokenizer.ggml.remove_extra_whitespaces": model.normalizer.collapses,
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.precompiled_charsmap": [x - 256 if x > 127 else x for x in model.normalizer.charsmap],
    }  # fmt: skip
    made = of_gguf(meta, tmp_path)
    for case in oracle(name)["cases"]:
        want = case["ids"][:-1] if name.endswith("t5") else case["ids"]
        assert made.encode(case["text"]) == want, case["text"]


@pytest.mark.parametrize("pre", sorted(PRE))
def test_every_pre_tokenizer_of_gguf_runs(pre, tmp_path):
    made = of_gguf(ranked("tiktoken-kimi", pre), tmp_path)
    for case in oracle("tiktoken-kimi")["cases"] if pre not in CHARACTERS else ():
        assert made.decode(made.encode(case["text"])) == case["text"]


@pytest.mark.parametrize("pre, text, words", [
    ("afmoe", "12345 1234567", ["12", "345", " ", "1", "234", "567"]),
    ("superbpe", "x 1234567", ["x ", "1", "234", "567"]),
    ("tiny_aya", "1234567", ["1", "234", "567"]),
    ("kimi-k2", "ab東京cd", ["ab", "東京", "cd"]),
    ("ufakzeka", "Ali'nin", ["Ali", "'nin"]),
    ("jais-2", "a     b", ["a", "    ", " b"]),
    ("deepseek-llm", "Añb 12", ["A", "ñ", "b", " ", "12"]),
    ("bloom", "a b.c", ["a", " b", ".", "c"]),
])  # fmt: skip
def test_words_of_pre_tokenizers(pre, text, words):
    """What sets a family apart, as unicode.cpp and the patterns of llama.cpp have it."""
    steps = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated") for p in PRE[pre]])
    assert [word for word, _ in steps.pre_tokenize_str(text)] == words
