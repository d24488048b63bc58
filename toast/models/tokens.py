"""Text to token ids and batches of them, by the model's own tokenizer.json.

Owns: the length limit and what was cut, padding. Does not know: prompts, the meaning of a record.
"""

import os
from array import array

import mlx.core as mx
from tokenizers import Tokenizer

from toast.errors import BadModel
from toast.store.folder import read_config, read_json, transformer


# RoBERTa's first position is pad_token_id + 1, so its table holds that many positions less.
POSITIONS_AFTER_PAD = {"roberta", "xlm-roberta", "camembert", "mpnet"}


class Tokens:
    """The tokenizer of a model folder with a limit of `max_length` tokens, special ones included.

    tokenizer.json may carry a truncation and padding of its own; both are switched off.
    """

    def __init__(self, path, max_length, lower=False):
        file = os.path.join(path, "tokenizer.json")
        if not os.path.isfile(file):
            raise BadModel(f"{path}: no tokenizer.json")
        try:
            self.tokenizer = Tokenizer.from_file(file)
        except Exception as error:  # what tokenizers raises
            raise BadModel(f"{file}: {error}") from None
        self.tokenizer.no_padding()
        self.max_length = max_length
        if lower:
            lowercase(self.tokenizer)

    def encode(self, inputs, special=True, truncate="longest_first"):
        """Strings or (first, second) pairs -> Encodings: .ids, .type_ids; .overflowing is not empty
        when the input was cut and holds its further pieces. truncate: longest_first, only_first,
        only_second or None for no limit."""
        if truncate:
            try:
                self.tokenizer.enable_truncation(self.max_length, strategy=truncate)
            except Exception as error:  # the limit is smaller than the special tokens
                raise BadModel(f"a limit of {self.max_length} tokens: {error}") from None
        else:
            self.tokenizer.no_truncation()
        return self.tokenizer.encode_batch(inputs, add_special_tokens=special)


class Row:
    """Ids of one piece, with the attributes of a tokenizers.Encoding that matter here."""

    def __init__(self, ids, overflowing=()):
        self.ids, self.type_ids, self.overflowing = ids, [0] * len(ids), list(overflowing)


def load(path):
    """The tokenizer of a model with its own limit."""
    return Tokens(*limits(path))


def limits(path):
    """(folder of the tokenizer, most tokens, lower-case first) as the model's files say."""
    folder = transformer(path)
    config, settings = read_config(folder), read_json(folder, "sentence_bert_config.json") or {}
    most = max_length(folder, config, settings.get("max_seq_length"))
    return folder, most, bool(settings.get("do_lower_case"))


def max_length(folder, config, limit):
    """Smaller of what the settings, else the tokenizer, say and the positions there are."""
    if not limit:
        limit = (read_json(folder, "tokenizer_config.json") or {}).get("model_max_length")
    positions = config.get("max_position_embeddings")
    if positions and config.get("model_type") in POSITIONS_AFTER_PAD:
        positions -= config.get("pad_token_id", 1) + 1
    return int(min(x for x in (limit, positions, 1 << 20) if x and x > 0))


def lowercase(tokenizer):
    """Lower case before the tokenizer's own normalizer."""
    from tokenizers.normalizers import Lowercase, Sequence

    steps = [Lowercase(), tokenizer.normalizer]
    tokenizer.normalizer = Sequence([step for step in steps if step is not None])


def pad(rows):
    """Lists of int, padded with zeros to the longest: (B, L) int32."""
    length = max(map(len, rows), default=0)
    flat = array("i")
    for row in rows:
        flat.extend(row)
        flat.frombytes(bytes(4 * (length - len(row))))
    return mx.array(memoryview(flat)).reshape(len(rows), length)


def batch(encodings):
    """What a Model takes: (ids (B, L), lengths (B,), types (B, L)), int32, right-padded."""
    lengths = mx.array([len(e.ids) for e in encodings], mx.int32)
    return pad([e.ids for e in encodings]), lengths, pad([e.type_ids for e in encodings])
