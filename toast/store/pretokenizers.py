"""How a BPE vocabulary's text is cut into words before pairs are merged: the families, by their names in GGUF.

Owns the patterns, in Oniguruma's spelling, and what a family does besides. Does not run a tokenizer.

Source: llama.cpp's src/llama-vocab.cpp, whose ids are the reference for every family."""

from __future__ import annotations

CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_REST = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
LLAMA3 = rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
QWEN2 = rf"{_WORDS}|\p{{N}}|{_REST}"
QWEN35 = QWEN2.replace(r"]?\p{L}+", r"]?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_SLASH = _REST.replace(r"[\r\n]*", r"[\r\n/]*")


def _cased(upper: str, lower: str, end: str = "") -> str:
    """Words whose capitals come first, and words in capitals."""
    before = r"[^\r\n\p{L}\p{N}]?"
    return rf"{before}[{upper}]*[{lower}]+{end}|{before}[{upper}]+[{lower}]*{end}"


TEKKEN = rf"{_cased(_UPPER, _LOWER)}|\p{{N}}|{_SLASH}"
GPT4O = rf"{_cased(_UPPER, _LOWER, CONTRACTION + '?')}|\p{{N}}{{1,3}}|{_SLASH}"
_NOT_HAN = r"&&[^\p{Han}]"
KIMI = (
    rf"\p{{Han}}+|{_cased(_UPPER + _NOT_HAN, _LOWER + _NOT_HAN, CONTRACTION + '?')}"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_MARKED = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
_DEEPSEEK3 = rf"{_MARKED}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
_CHINESE = "[一-龥぀-ゟ゠-ヿ]+"
_KOREAN = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"
_ASIAN = "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+"
_CASED_LETTERS = (  # the cased letters of an older Unicode
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄ"
    "ῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_SENTENCES = r" ?[^(\s|.,!?…。，、।۔،)]+"
_THREES = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"  # digits by threes from the right
_FALLING = "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))
LINES = r"[^\n]+|[\n]+"

# tokenizer.ggml.pre -> the patterns that split the text, one after the other
_FAMILIES = {
    ("gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "jina-es", "jina-de", "gigachat",
     "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum", "modern-bert", "exaone4", "jina-v1-en", "jina-v2-code",
     "roberta-bpe"): (GPT2,),
    ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "minerva",
     "mellum2"): (r"\p{N}", GPT2),
    ("falcon",): (r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"),
    ("default", ""): (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2", "midm-2.0", "jina-v5-nano", "dbrx",
     "smaug-bpe", "chatglm-bpe", "glm4", "glm5"): (LLAMA3,),
    ("jais-2",): (LLAMA3.replace(r"|\s+(?!\S)|\s+", rf"|{_FALLING}|\s"),),
    ("minicpm5",): (r"\p{N}{1,3}", LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}+")),
    ("qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan", "solar-open", "grok-2", "kormo",
     "f2llmv2"): (QWEN2,),
    ("qwen35",): (QWEN35,),
    ("ufakzeka",): (QWEN2.removeprefix(f"{CONTRACTION}|"),),
    ("laguna",): (LINES, QWEN2),
    ("seed-coder",): (rf"{_WORDS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",),
    ("bailingmoe", "bailingmoe2", "llada-moe"): (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]|\s+(?!\S)|\s+",),
    ("exaone-moe",): (
        rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",),
    ("tekken",): (TEKKEN,),
    ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "granite-embed-multi-97m"): (GPT4O,),
    ("tiny_aya", "cohere2moe"): (r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O),
    ("kimi-k2",): (KIMI,),
    ("youtu",): (_KOREAN, GPT4O.replace(r"\p{N}{1,3}", r"\p{N}")),
    ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"): (r"\p{N}{1,3}", _CHINESE, _DEEPSEEK3),
    ("spark2_5",): (r"\p{N}{1,3}", _CHINESE, rf"{_MARKED}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"),
    ("afmoe",): (_THREES, _ASIAN, _DEEPSEEK3),
    ("deepseek-coder",): (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"),
    ("deepseek-llm",): (r"[\r\n]", rf"\s?[{_CASED_LETTERS}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$",
                        "[一-龥ࠀ-一가-퟿]+", r"\p{N}+"),
    ("poro-chat", "bloom", "gpt3-finnish"): (_SENTENCES,),
    ("viking",): (_SENTENCES, r"\p{N}"),
    ("superbpe",): (r"\p{N}+", r"(?=(\d{3})+(?!\d))"),
    ("chameleon",): ("<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", r"\p{N}",
                     r"[\p{P}!-/:-@\[-`{-~]", GPT2),
    ("gemma4", "granite-embed-multi-311m", "sarvam-moe"): (LINES,),
    ("whitespace",): (r"\S+",),
}  # fmt: skip
PRE = {name: patterns for names, patterns in _FAMILIES.items() for name in names}

# whose words are taken whole where the vocabulary has them
WHOLE = {
    "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2", "midm-2.0", "jina-v5-nano",
    "minicpm5", "youtu", "glm4", "glm5", "tekken", "granite-embed-multi-97m",
}  # fmt: skip
# that begin a text where the file does not say
BEGINS = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2", "midm-2.0", "jina-v5-nano",
          "tekken", "chameleon"}  # fmt: skip
# of characters, with \u2581 for a blank; the others are of bytes
CHARACTERS = {"gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace"}
