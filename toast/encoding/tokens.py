"""Text to token ids and batches of them, by the model's own tokenizer.json.

Owns: the length limit and what was cut, padding. Does not know: prompts, the meaning of a record.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from array import array

import mlx.core as mx

from toast.encoding import wordpiece
from toast.encoding.quick import Quick
from toast.errors import BadModel
from toast.store import compiled
from toast.store.folder import read_config, read_json, transformer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Text = str | tuple[str, str]  # a text or a pair of them

HEAD = 1 << 14  # characters of a text over which its beginning is looked at first
NEAR = 256  # characters before the end of a beginning in which a cut may change tokens
UNLIMITED = 1 << 20  # tokens
QUICK = 1 << 14  # characters that a process tokenizes itself before it takes the time to load the library

STATIC = {"static": UNLIMITED, "model2vec": 512}  # what these read of a text where their files do not say

# RoBERTa's first position is pad_token_id + 1, so its table holds that many positions less.
POSITIONS_AFTER_PAD = {"roberta", "xlm-roberta", "camembert", "mpnet"}


class Tokens:
    """The tokenizer of a model folder with a limit of `max_length` tokens, special ones included. For any number of
    uses at once: what the library's tokenizer keeps of a use (its truncation) is set under a lock.

    tokenizer.json may carry a truncation and padding of its own; both are switched off. bare: special tokens are
    never put around a text; skips_unknown: the token for what is not known is left out.
    """

    def __init__(
        self, path: str, max_length: int, *, lower: bool = False, bare: bool = False, skips_unknown: bool = False
    ) -> None:
        self.file = os.path.join(path, "tokenizer.json")
        if not os.path.isfile(self.file):
            raise BadModel(f"{path}: no tokenizer.json")
        self.max_length, self.lower, self.bare, self.skips_unknown = max_length, lower, bare, skips_unknown
        self.quick: Any = None if lower else _mapped(path) or wordpiece.read(self.file)
        self._left = QUICK  # time alone depends on it: both ways give the same
        self._lock = allocate_lock()
        self._library: Any = None
        if not self.quick:
            self._load()  # what is wrong with the file shows now

    def _load(self) -> Any:
        """The library's tokenizer, loaded when it is first needed."""
        if self._library is None:
            library = compiled.library(os.path.dirname(self.file))
            if self.lower:
                lowercase(library)
            self._library = library
        return self._library

    def id(self, token: str) -> int | None:
        """The id of a token, None when there is none."""
        return self.quick.id(token) if self.quick else self._load().token_to_id(token)

    def special_tokens(self, *, pair: bool = False) -> int:
        """How many tokens the model puts around a text, or around the two of a pair."""
        if self.bare:
            return 0
        if isinstance(self.quick, Quick) and (template := self.quick.core.template(pair=pair)) is not None:
            return len(template) - 1 - pair
        with self._lock:
            return self._load().num_special_tokens_to_add(is_pair=pair)

    def encode(
        self, inputs: Sequence[Text], *, special: bool = True, truncate: str | None = "longest_first",
        limit: int | None = None, whole: bool = True,
    ) -> list[Any]:  # fmt: skip
        """Strings or (first, second) pairs -> Encodings: .ids, .type_ids, .offsets; .overflowing is not
        empty when the input was cut and holds its further pieces. truncate: longest_first, only_first,
        only_second or None for no limit. limit: tokens, instead of max_length. whole=False, for those who want
        neither offsets nor further pieces: of a long text no more is read than the limit takes."""
        limit, special = limit or self.max_length, special and not self.bare
        if not whole and any(len(x) > HEAD for pair in inputs for x in ([pair] if isinstance(pair, str) else pair)):
            inputs = [self._shorter(x, truncate, limit) for x in inputs]
        found = self._quickly(inputs, special=special, truncate=truncate, limit=limit if truncate else None)
        left = [i for i, row in enumerate(found) if row is None]
        if left:
            rest = self._by_library([inputs[i] for i in left], special=special, truncate=truncate, limit=limit)
            for i, row in zip(left, rest, strict=True):
                found[i] = row
        return [without(row, self._unknown()) for row in found] if self.skips_unknown else found

    def _unknown(self) -> int | None:
        """The token for what is not known."""
        if self.quick:
            return self.quick.unknown
        import json

        model = self._load().model
        if not hasattr(model, "unk_token"):  # of Unigram the library tells it in JSON alone
            return json.loads(self._load().to_str())["model"].get("unk_id")
        return self._load().token_to_id(model.unk_token) if model.unk_token is not None else None

    def count(self, text: str) -> int:
        """Tokens of a text alone."""
        return len(self.encode([text], special=False, truncate=None)[0].ids)

    def reads(self, text: str) -> bool:
        """Whether the vocabulary has words of the script that a text is in. Where it has not, as MiniLM's of Cyrillic,
        nearly each letter is a piece or is unknown; ideographs may be."""
        letters = [c for c in text if c.isalpha()]
        foreign = [c for c in letters if not c.isascii()]
        if 2 * len(foreign) <= len(letters):
            return True
        ids = self.encode([text], special=False)[0].ids
        unknown = {self.id(name) for name in ("[UNK]", "<unk>")}
        if sum(id in unknown for id in ids) > 0.3 * len(ids):
            return False
        return len(ids) < 0.75 * len(letters) or 2 * sum("\u2e80" <= c <= "\u9fff" for c in foreign) > len(foreign)

    def cut(self, text: str, most: int) -> str:
        """The text, or what its first `most` tokens are of it."""
        row = self.encode([text], special=False, truncate=None)[0]
        return text if len(row.ids) <= most else text[: row.offsets[most][0]]

    def _shorter(self, given: Text, truncate: str | None, limit: int) -> Text:
        """The same input with as much of a long text as decides its ids, and whether it is cut."""
        if isinstance(given, str):
            return self.head(given, limit if truncate else None)
        long = int(len(given[1]) > len(given[0]))
        # the other text keeps all of its tokens: so many bytes are no more
        other = len(given[1 - long].encode()) <= limit // 2
        cut = other and truncate in ("longest_first", ("only_first", "only_second")[long])
        heads = [self.shortened(text) for text in given]
        heads[long] = self.head(given[long], limit if cut else None)
        return heads[0], heads[1]

    def shortened(self, text: str) -> str:
        """The text without what its tokens do not depend on, if it is long."""
        if len(text) <= HEAD or not (self.quick and self.quick.shortens):
            return text
        from toast.long_words import Shortened

        return Shortened(text).text

    def head(self, text: str, limit: int | None) -> str:
        """The beginning of a text, over whose first `limit` tokens nothing after it decides, and one more; all of
        it when it has no more."""
        if limit is None or len(text) <= HEAD:
            return self.shortened(text)
        size, before = 16 * limit + 64, None
        while size < len(text):
            part = text[:size]
            [found] = self.encode([part], special=False, truncate=None)
            first = found.ids[: limit + 1]
            if len(first) > limit:
                if first == before or self._is_settled(part, found.offsets[limit][1]):
                    return part
                before = first
            elif len(text := self.shortened(text)) <= size:
                break
            size *= 2
        return text

    def _is_settled(self, part: str, stop: int) -> bool:
        """Whether the tokens up to there stand, whatever comes after a part: words lie between, cut at a blank."""
        import re

        return self._cuts_at_blanks() and re.search(r"\w \w", part[stop : max(stop, len(part) - NEAR)]) is not None

    def _cuts_at_blanks(self) -> bool:
        if self.quick:
            return self.quick.cuts_at_blanks
        cutter = self._load().pre_tokenizer
        return cutter is not None and len(cutter.pre_tokenize_str("a b")) > 1

    def _by_library(self, inputs: Sequence[Text], *, special: bool, truncate: str | None, limit: int) -> list[Any]:
        with self._lock:
            library = self._load()
            if not truncate:
                library.no_truncation()
                return library.encode_batch(inputs, add_special_tokens=special)
            try:
                library.enable_truncation(limit, strategy=truncate)
                return library.encode_batch(inputs, add_special_tokens=special)
            except Exception as error:  # the limit is smaller than the special tokens, or than what may not be cut
                raise BadModel(f"{self.file}: a limit of {limit} tokens is too small: {error}") from None

    def _quickly(self, inputs: Sequence[Text], *, special: bool, truncate: str | None, limit: int | None) -> list[Any]:
        """The same without the library, by a compiled vocabulary or for few short inputs; None for each that the
        library is needed for, and for all where it is there already."""
        texts = [(x,) if isinstance(x, str) else x for x in inputs]
        self._left -= sum(len(text) for pair in texts for text in pair)
        none = [None] * len(texts)
        if not self.quick or self._library is not None:
            return none
        if isinstance(self.quick, Quick):
            return [self.quick.sure(pair, special=special, truncate=truncate, limit=limit) for pair in texts]
        try:
            found = [self.quick.encode(pair, special=special) for pair in texts] if self._left >= 0 else none
        except wordpiece.Unsure:
            return none
        return none if limit and any(row and len(row.ids) > limit for row in found) else found


def _mapped(path: str) -> Quick | None:
    core = compiled.mapped(path)
    return Quick(core) if core else None


class Row:
    """Ids of one piece, with the attributes of a tokenizers.Encoding that matter here."""

    def __init__(
        self, ids: list[int], overflowing: Iterable[Row] = (), offsets: Sequence[tuple[int, int]] = ()
    ) -> None:
        self.ids, self.type_ids, self.overflowing, self.offsets = ids, [0] * len(ids), list(overflowing), offsets


def without(row: Any, id: int | None) -> Any:
    """The encoding without a token."""
    if id is None or not any(id in part.ids for part in (row, *row.overflowing)):
        return row
    kept = [(i, span) for i, span in zip(row.ids, row.offsets, strict=True) if i != id]
    return Row([i for i, _ in kept], [without(part, id) for part in row.overflowing], [span for _, span in kept])


def load(path: str) -> Tokens:
    """The tokenizer of a model with its own limit."""
    folder, limit, lower = limits(path)
    return Tokens(folder, limit, lower=lower)


def limits(path: str) -> tuple[str, int, bool]:
    """(folder of the tokenizer, most tokens, lower-case first) as the model's files say."""
    folder = transformer(path)
    config, settings = read_config(folder), read_json(folder, "sentence_bert_config.json") or {}
    most = max_length(folder, config, settings.get("max_seq_length") or STATIC.get(str(config.get("model_type"))))
    return folder, most, bool(settings.get("do_lower_case"))


def max_length(folder: str, config: dict[str, Any], limit: int | None) -> int:
    """Smaller of what the settings, else the tokenizer, say and the positions there are."""
    if not limit:
        limit = (read_json(folder, "tokenizer_config.json") or {}).get("model_max_length")
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if positions and config.get("model_type") in POSITIONS_AFTER_PAD:
        positions -= config.get("pad_token_id", 1) + 1
    try:
        return max(1, int(min(x for x in (limit, positions, UNLIMITED) if x and x > 0)))
    except (TypeError, ValueError):
        raise BadModel(f"{folder}: its limit of tokens is {str(limit)[:40]}, not a number") from None


def lowercase(tokenizer: Any) -> None:
    """Lower case before the tokenizer's own normalizer."""
    from tokenizers.normalizers import Lowercase, Sequence

    steps = [Lowercase(), tokenizer.normalizer]
    tokenizer.normalizer = Sequence([step for step in steps if step is not None])


def pad(rows: list[list[int]]) -> mx.array:
    """Lists of int, padded with zeros to the longest: (B, L) int32."""
    length = max(map(len, rows), default=0)
    flat = array("i")
    for row in rows:
        flat.extend(row)
        flat.frombytes(bytes(4 * (length - len(row))))
    view: Any = memoryview(flat)
    return mx.array(view).reshape(len(rows), length)


def batch(encodings: list[Any]) -> tuple[mx.array, mx.array, mx.array]:
    """What a Model takes: (ids (B, L), lengths (B,), types (B, L)), int32, right-padded."""
    lengths = mx.array([len(e.ids) for e in encodings], mx.int32)
    return pad([e.ids for e in encodings]), lengths, pad([e.type_ids for e in encodings])
