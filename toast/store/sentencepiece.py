"""SentencePiece's models (`tokenizer.model`, `spiece.model`) as the document that the tokenizers library reads.

Owns the protobuf message, as far as it is needed, and what BPE and Unigram models of it mean. Knows nothing of folders.

Source: sentencepiece_model.proto of https://github.com/google/sentencepiece, whose ids are the reference.
"""

from __future__ import annotations

from base64 import b64encode
from struct import unpack

from toast.errors import BadModel
from toast.store.documents import BYTE, CONTROL, NEVER, UNKNOWN, UNUSED, USER, characters, merges, token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Json = dict[str, Any]
    Piece = tuple[str, float, int]  # text, score, type

UNIGRAM, BPE = 1, 2
BLANK = "▁"
METASPACE = {"type": "Metaspace", "replacement": BLANK}


class Normalizer:
    """What is done to a text first. charsmap: a compiled table of replacements; first: a blank is put before it;
    collapses: blanks around it go, and several become one."""

    def __init__(self, charsmap: bytes = b"", *, first: bool = True, collapses: bool = True) -> None:
        self.charsmap, self.first, self.collapses = charsmap, first, collapses

    def steps(self) -> list[Json]:
        steps: list[Json] = []
        if self.charsmap:
            steps.append({"type": "Precompiled", "precompiled_charsmap": b64encode(self.charsmap).decode()})
        if self.collapses:
            changes = ((r"\A +| +\z", ""), (" {2,}", " "))
            steps += [{"type": "Replace", "pattern": {"Regex": a}, "content": b} for a, b in changes]
        return steps


class Model:
    """A ModelProto. pieces: (text, score, type) by id; kind: UNIGRAM or BPE; splits: words are cut at blanks."""

    def __init__(self, data: bytes) -> None:
        self.pieces: list[Piece] = []
        self.normalizer = Normalizer()
        self.kind, self.splits, self.unknown = UNIGRAM, True, 0
        self.first_alone = False  # the blank before a text is not put before its later parts
        for field, value in fields(data):
            if field == 1:
                self.pieces.append(_piece(value))
            elif field == 2:
                self._train(dict(fields(value)))
            elif field == 3:
                found = dict(fields(value))
                self.normalizer = Normalizer(
                    found.get(2, b""), first=bool(found.get(3, 1)), collapses=bool(found.get(4, 1))
                )
                if not found.get(5, 1):
                    raise BadModel("a SentencePiece model whose blanks are no \\u2581 is not supported")
        if not self.pieces:
            raise BadModel("a SentencePiece model without pieces")
        self.unknown = next((i for i, (_, _, kind) in enumerate(self.pieces) if kind == UNKNOWN), self.unknown)

    def _train(self, found: dict[int, Any]) -> None:
        self.kind, self.splits = found.get(3, UNIGRAM), bool(found.get(22, 1))
        if self.kind not in (UNIGRAM, BPE) or found.get(24):
            raise BadModel("of SentencePiece's models only Unigram and BPE are supported, with blanks before words")

    def document(self) -> Json:
        """normalizer, pre_tokenizer, decoder and model of a tokenizer.json."""
        if self.kind == UNIGRAM:
            return unigram(self.pieces, self.normalizer, unknown=self.unknown, splits=self.splits)
        return self._bpe()

    def _bpe(self) -> Json:
        vocab = {text: i for i, (text, _, _) in enumerate(self.pieces)}
        scores = [score for _, score, _ in self.pieces]
        unmade = {text for text, _, kind in self.pieces if kind in (CONTROL, UNKNOWN, UNUSED, BYTE, USER)}
        pairs = [pair for pair in merges(scores, vocab) if pair[0] + pair[1] not in unmade]
        parts = characters(first=self.normalizer.first)
        parts["normalizer"]["normalizers"] = self.normalizer.steps() + parts["normalizer"]["normalizers"]
        cut = any(kind == USER for _, _, kind in self.pieces)  # and behind such a piece is no beginning
        if self.normalizer.first and (cut or self.first_alone):
            parts["normalizer"]["normalizers"] = self.normalizer.steps()
            parts["pre_tokenizer"] = METASPACE | {"prepend_scheme": "first", "split": False}
        model = {
            "type": "BPE", "unk_token": self.pieces[self.unknown][0], "fuse_unk": True, "vocab": vocab,
            "merges": pairs, "byte_fallback": any(kind == BYTE for _, _, kind in self.pieces),
        }  # fmt: skip
        return {**parts, "model": model}

    def added(self) -> list[Json]:
        """The pieces that a text is cut at before all else."""
        return [
            token(i, text, special=kind != USER)
            for i, (text, _, kind) in enumerate(self.pieces)
            if kind in (CONTROL, UNKNOWN, USER)
        ]


def unigram(pieces: list[Piece], spec: Normalizer, *, unknown: int, splits: bool = True) -> Json:
    """The same parts for a Unigram model. splits: no piece reaches over a blank."""
    vocab = [[text, NEVER if kind == UNUSED else score] for text, score, kind in pieces]
    model = {"type": "Unigram", "unk_id": unknown, "vocab": vocab,
             "byte_fallback": any(kind == BYTE for _, _, kind in pieces)}  # fmt: skip
    parts = characters(first=spec.first)
    parts["normalizer"]["normalizers"] = spec.steps() + parts["normalizer"]["normalizers"]
    return {**parts, "pre_tokenizer": METASPACE | {"prepend_scheme": "never", "split": splits}, "model": model}


# ---------------------------------------------------------------- protobuf's wire format


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a message's fields: int, four or eight bytes, or bytes. BadModel when it is none."""
    at = 0
    value: Any
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = data[at : at + size], at + size
        elif kind == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise BadModel("not a SentencePiece model")
        if at > len(data):
            raise BadModel("a SentencePiece model that is cut short")
        yield key >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise BadModel("not a SentencePiece model")


def _piece(data: Any) -> Piece:
    if not isinstance(data, bytes):
        raise BadModel("not a SentencePiece model")
    found = dict(fields(data))
    text, score, kind = found.get(1, b""), found.get(2, bytes(4)), found.get(3, 1)
    if not (isinstance(text, bytes) and isinstance(score, bytes) and len(score) == 4 and isinstance(kind, int)):
        raise BadModel("not a SentencePiece model")
    name = text.decode(errors="replace")
    # a text is cut at the user's pieces before its blanks are replaced
    return name.replace(BLANK, " ") if kind == USER else name, unpack("<f", score)[0], kind
