"""Make vocabularies/*: small vocabularies in every form that models come with, and the ids that their own libraries give.

Run: python make_vocabularies.py (needs sentencepiece, tiktoken, mistral-common, transformers; the versions are in each
oracle.json). They are trained on this project's documents.
"""

import base64
import io
import json
import os
import shutil
from functools import cache
from importlib.metadata import version

import sentencepiece
import tiktoken
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from tiktoken._educational import SimpleBytePairEncoding
from tiktoken_ext import openai_public
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "vocabularies")
CASES = [
    "", "a", "Hello world", " leading space", "trailing  ", "two  spaces   three", "Tabs\tand\nnew lines\n\n\nend",
    "don't STOP! It's 1234567 o'clock; 3.14159", "naïve café déjà vu", "東京は日本の首都です。ab東京", "Привет, мир!",
    "مرحبا بالعالم", "😀😀 emoji 👩‍👩‍👧", "ﬁne ﬀ ½ Ａ fullwidth", "　ideographic", "The quick brown fox. " * 3,
    "def f(x):\n    return x ** 2\n", "á combining", "한국어 ไทย", "____ ---- ....", "  \n  ", "x\r\n\r\ny",
]  # fmt: skip
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+")  # fmt: skip
KIMI = "|".join([  # tokenization_kimi.py
    r"[\p{Han}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
])  # fmt: skip
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
          r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")  # fmt: skip
CHANGES = [("ﬁ", "fi"), ("ﬀ", "ff"), ("Ａ", "A"), ("　", " "), ("\t", " "), ("\n", " "), ("½", "1⁄2")]


def text():
    names = ["docs/design.md", "docs/formats.md", "docs/guide.md", "README.md"]
    paths = [os.path.join(HERE, "..", "..", name) for name in names]
    found = "".join(open(path, encoding="utf-8").read() for path in paths if os.path.exists(path))
    return found + "naïve café déjà vu 東京は日本の首都です。Привет, мир! مرحبا بالعالم\n" * 20


def folder(name):
    path = os.path.join(OUT, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def save(path, encode, library, **facts):
    facts = {"library": f"{library} {version(library)}", **facts}
    facts["cases"] = [{"text": case, "ids": list(encode(case))} for case in CASES]
    write(path, "oracle.json", facts)


def write(path, name, value):
    with open(os.path.join(path, name), "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False)


# ---------------------------------------------------------------- SentencePiece


def pieces(name, config=None, **settings):
    path, model = folder(name), io.BytesIO()
    lines = [line for line in text().split("\n") if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, minloglevel=2, **settings
    )
    file = {"t5": "spiece.model", "xlm-roberta": "sentencepiece.bpe.model"}.get(
        (config or {}).get("model_type"), "tokenizer.model"
    )
    with open(os.path.join(path, file), "wb") as out:
        out.write(model.getvalue())
    if config:
        write(path, "config.json", config)
    return path, sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def all_pieces():
    plain = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "byte_fallback": True}
    bpe = plain | {"model_type": "bpe", "vocab_size": 500, "character_coverage": 0.99}
    unigram = {"model_type": "unigram", "vocab_size": 450, "character_coverage": 0.99}
    rules = os.path.join(OUT, "rules.tsv")
    with open(rules, "w", encoding="utf-8") as file:
        for before, after in CHANGES:
            spelled = [" ".join(f"{ord(c):X}" for c in part) for part in (before, after)]
            file.write("\t".join(spelled) + "\n")
    for name, settings in {
        "sentencepiece-bpe": bpe | {"split_digits": True},
        "sentencepiece-bpe-user": bpe | {"add_dummy_prefix": False, "user_defined_symbols": ["\n\n", "▁▁", "<unused0>"]},
        "sentencepiece-unigram": unigram | {"normalization_rule_tsv": rules},
        "sentencepiece-unigram-bytes": unigram | plain | {"vocab_size": 600, "split_by_whitespace": False},
    }.items():
        path, model = pieces(name, **settings)
        save(path, model.encode, "sentencepiece")
    os.remove(rules)
    for kind, ids in {"t5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}, "xlm-roberta": {}}.items():
        path, model = pieces(f"sentencepiece-{kind}", {"model_type": kind}, **unigram, **ids,
                             normalization_rule_name="identity")  # fmt: skip
        if kind == "t5":
            save(path, lambda case: [*model.encode(case), 1], "sentencepiece", special=True)
        else:  # fairseq's ids: those of the library and one more, but for what is unknown
            save(path, lambda case: [0, *(i + 1 if i else 3 for i in model.encode(case)), 2], "sentencepiece",
                 special=True)  # fmt: skip


# ---------------------------------------------------------------- ranks


@cache
def trained():
    sample = text()[:60000] + text()[-1500:]
    return SimpleBytePairEncoding.train(sample, vocab_size=600, pat_str=QWEN).mergeable_ranks


def ranked(name, file, pattern, model_type, normalize=lambda text: text):
    path, ranks = folder(name), trained()
    with open(os.path.join(path, file), "wb") as out:
        out.write(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    write(path, "config.json", {"model_type": model_type})
    made = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    save(path, lambda case: made.encode(normalize(case), disallowed_special=()), "tiktoken")


def patterns():
    """OpenAI's own, without the ranks, which would be fetched."""
    openai_public.load_tiktoken_bpe = lambda *_, **__: {b"a": 0}
    return openai_public.cl100k_base()["pat_str"], openai_public.o200k_base()["pat_str"]


def all_ranks():
    from unicodedata import normalize

    cl100k, o200k = patterns()
    ranked("tiktoken-qwen", "qwen.tiktoken", QWEN, "qwen", lambda case: normalize("NFC", case))
    ranked("tiktoken-kimi", "tiktoken.model", KIMI, "kimi_k2")
    ranked("tiktoken-llama", "tokenizer.model", QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1), "llama")
    ranked("tiktoken-cl100k", "cl100k_base.tiktoken", cl100k, "phi3small")
    ranked("tiktoken-o200k", "o200k_base.tiktoken", o200k, "gpt_oss")
    path, ranks, count = folder("tekken"), trained(), 20
    vocab = [{"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
             for token, rank in ranks.items()]  # fmt: skip
    config = {"pattern": TEKKEN, "num_vocab_tokens": len(ranks), "default_vocab_size": len(ranks) + count,
              "default_num_special_tokens": count, "version": "v3"}  # fmt: skip
    write(path, "tekken.json", {"config": config, "vocab": vocab})
    made = Tekkenizer.from_file(os.path.join(path, "tekken.json"))
    save(path, lambda case: made.encode(case, bos=True, eos=False), "mistral-common", special=True)


# ---------------------------------------------------------------- lists


def all_lists():
    words = sorted({word.strip(".,;:`()").lower() for word in text().split() if word.isascii() and len(word) < 9})[::9]
    letters = [chr(i) for i in range(33, 127)] + list("éïàдира東京")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for name, lower in (("wordpiece", True), ("wordpiece-cased", False)):
        path = folder(name)
        found = dict.fromkeys([*special, *letters, *(f"##{x}" for x in letters), *words])
        with open(os.path.join(path, "vocab.txt"), "w", encoding="utf-8") as file:
            file.write("\n".join(found) + "\n")
        write(path, "config.json", {"model_type": "bert"})
        write(path, "tokenizer_config.json", {"do_lower_case": lower, "tokenizer_class": "BertTokenizer"})
        made = AutoTokenizer.from_pretrained(path)
        save(path, lambda case: made(case)["input_ids"], "transformers", special=True)
    for name, config, more in (
        ("bytes-gpt2", {"model_type": "gpt2"}, {"tokenizer_class": "GPT2Tokenizer"}),
        ("bytes-roberta", {"model_type": "roberta"}, {"tokenizer_class": "RobertaTokenizer"}),
        ("bytes-qwen2", {"model_type": "qwen2"}, {"tokenizer_class": "Qwen2Tokenizer"}),
    ):
        path = folder(name)
        made = ByteLevelBPETokenizer()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if "roberta" in name else ["<|endoftext|>"]
        made.train_from_iterator(text().split("\n"), vocab_size=600, special_tokens=special, show_progress=False)
        made.save_model(path)
        write(path, "config.json", config)
        write(path, "tokenizer_config.json", more)
        made = AutoTokenizer.from_pretrained(path)
        save(path, lambda case: made(case)["input_ids"], "transformers", special=True)


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    all_pieces()
    all_ranks()
    all_lists()
