"""Text to token ids and batches of them, by the model's own tokenizer.json.

Owns: the length limit and what was cut, padding. Does not know: prompts, the meaning of a record.
"""

import os
from array import array

import mlx.core as mx

from toast.encoding import wordpiece
from toast.errors import BadModel
from toast.store.folder import read_config, read_json, transformer

QUICK = 1 << 14  # characters that a run tokenizes itself before it takes the time to load the library

# RoBERTa's first position is pad_token_id + 1, so its table holds that many positions less.
POSITIONS_AFTER_PAD = {"roberta", "xlm-roberta", "camembert", "mpnet"}


class Tokens:
    """The tokenizer of a model folder with a limit of `max_length` tokens, special ones included.

    tokenizer.json may carry a truncation and padding of its own; both are switched off.
    """

    def __init__(self, path, max_length, lower=False):
        self.file = os.path.join(path, "tokenizer.json")
        if not os.path.isfile(self.file):
            raise BadModel(f"{path}: no tokenizer.json")
        self.max_length, self.lower, self.left = max_length, lower, QUICK
        self.quick = None if lower else wordpiece.read(self.file)
        self._library = None
        if not self.quick:
            self.tokenizer  # what is wrong with the file shows now

    @property
    def tokenizer(self):
        """The library's tokenizer, loaded when it is first needed."""
        if self._library is None:
            from tokenizers import Tokenizer

            try:
                self._library = Tokenizer.from_file(self.file)
            except Exception as error:  # what tokenizers raises
                raise BadModel(f"{self.file}: {error}") from None
            self._library.no_padding()
            if self.lower:
                lowercase(self._library)
        return self._library

    def id(self, token):
        """The id of a token, None when there is none."""
        return self.quick.id(token) if self.quick else self.tokenizer.token_to_id(token)

    def encode(self, inputs, special=True, truncate="longest_first"):
        """Strings or (first, second) pairs -> Encodings: .ids, .type_ids, .offsets; .overflowing is not
        empty when the input was cut and holds its further pieces. truncate: longest_first, only_first,
        only_second or None for no limit."""
        found = self._quickly(inputs, special, self.max_length if truncate else None)
        if found is not None:
            return found
        if truncate:
            try:
                self.tokenizer.enable_truncation(self.max_length, strategy=truncate)
            except Exception as error:  # the limit is smaller than the special tokens
                raise BadModel(f"a limit of {self.max_length} tokens: {error}") from None
        else:
            self.tokenizer.no_truncation()
        return self.tokenizer.encode_batch(inputs, add_special_tokens=special)

    def _quickly(self, inputs, special, limit):
        """The same without the library, for few short inputs; None where it is needed or there already."""
        texts = [(x,) if isinstance(x, str) else x for x in inputs]
        self.left -= sum(len(text) for pair in texts for text in pair)
        if not self.quick or self._library is not None or self.left < 0:
            return None
        try:
            found = [self.quick.encode(pair, special) for pair in texts]
        except wordpiece.Unsure:
            return None
        return None if limit and any(len(row.ids) > limit for row in found) else found


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
