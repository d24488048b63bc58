"""Late interaction (ColBERT, Khattab & Zaharia 2020): a vector for each token, scored by MaxSim.

Owns: the three layouts that such checkpoints come in, markers, expansion. Does not know: ranking.
"""

from __future__ import annotations

import string

import mlx.core as mx

from toast.encoding import tokens
from toast.encoding.sentence_transformers import dense, normalize
from toast.errors import BadModel
from toast.models import encoder, layers
from toast.store import weights
from toast.store.folder import blame, modules, read_config, read_json, transformer
from toast.task import is_stanford

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Facts = dict[str, Any]


class ColBERT:
    """Encoder, projection and what `settings` found, immutable; max_length: tokens of a document piece."""

    def __init__(self, path: str) -> None:
        with blame(path):
            self._read(path)

    def _read(self, path: str) -> None:
        facts = settings(path)
        self.tokens = tokens.load(path)
        limit = facts["document_length"] or self.tokens.max_length
        folder = transformer(path)
        self.max_length = tokens.max_length(folder, read_config(folder), limit)
        self.query_length, self.attend = int(facts["query_length"] or 0), facts["attend"]
        self.model, self.steps = encoder(path), projection(path)
        find = self.tokens.id
        self.mask = find("[MASK]") if find("[MASK]") is not None else find("<mask>")
        self.markers = {kind: self.marker(facts[kind]) for kind in ("query", "document")}
        self.skip = {find(word) for word in facts["skip"]}

    def marker(self, text: str) -> tuple[int | None, str]:
        """(token put after the first one or None, text put before the input or "")."""
        for word in (text, *text.split()[:1]):
            found = self.tokens.id(word)
            if found is not None:
                return found, ""
        return None, text

    def query_row(self, text: str) -> tokens.Row:
        """The ids of a query; .overflowing: what is over the limit."""
        return self.rows([text], "query", limit=self.query_length or self.max_length)[0]

    def query(self, text: str) -> mx.array:
        """Vectors of a query's tokens (L, dims), mask tokens included where the model adds them."""
        ids = self.query_row(text).ids
        n = len(ids)
        if self.query_length and self.mask is not None:
            ids = ids + [self.mask] * (self.query_length - n)
        length = mx.array([len(ids) if self.attend else n])
        return self.project(self.model(mx.array([ids]), length))[0]

    def encode(self, texts: list[str], *, whole: bool = True) -> list[tokens.Row]:
        """Documents -> Rows of ids; .overflowing: further pieces of a long one, all of them where it is `whole`."""
        return self.rows(list(map(self.tokens.shortened, texts)), "document", limit=self.max_length, whole=whole)

    def rows(self, texts: list[str], kind: str, *, limit: int, whole: bool = True) -> list[tokens.Row]:
        """Texts -> Rows of at most `limit` ids, behind the marker of their kind."""
        token, prefix = self.markers[kind]
        limit -= token is not None
        encodings = self.tokens.encode([prefix + text for text in texts], limit=limit, whole=whole)
        return [self.row(encoding, token) for encoding in encodings]

    def row(self, encoding: Any, token: int | None) -> tokens.Row:
        ids = encoding.ids
        ids = ids if token is None else [*ids[:1], token, *ids[1:]]
        return tokens.Row(ids, [self.row(piece, token) for piece in encoding.overflowing])

    def scores(self, query: mx.array, rows: list[tokens.Row]) -> mx.array:
        """MaxSim of a query's vectors (L, dims) with each document: (B,), at most L."""
        ids, lengths, _ = tokens.batch(rows)
        kept = tokens.pad([[int(i not in self.skip) for i in row.ids] for row in rows])
        likeness = query @ self.project(self.model(ids, lengths)).swapaxes(1, 2)
        return mx.sum(mx.max(mx.where(kept[:, None] > 0, likeness, -mx.inf), axis=-1), axis=-1)

    def project(self, hidden: mx.array) -> mx.array:
        for step in self.steps:
            hidden = step(hidden)
        return normalize(hidden)


def projection(path: str) -> list[Callable[[mx.array], mx.array]]:
    """The functions from token states to vectors."""
    steps = [dense(folder)[0] for kind, folder in modules(path) if kind == "Dense"]
    if steps:
        return steps
    tensors = weights.load(transformer(path))
    if "linear.weight" not in tensors:
        raise BadModel(f"{path}: no projection of a late-interaction model")
    w, (rows, dims) = layers.Tensors(tensors, {}), tensors["linear.weight"].shape
    linear = w.linear("linear", rows, dims, bias=False)
    w.settle()
    return [linear]


def settings(path: str) -> Facts:
    """Markers (query, document), lengths (None: no limit, no expansion), attend, words to skip."""
    if is_stanford(path):
        return from_stanford(read_json(path, "artifact.metadata") or {})
    saved = read_json(path, "config_sentence_transformers.json") or {}
    if "query_prefix" in saved or saved.get("model_type") == "ColBERT":
        return from_pylate(saved)
    return from_sentence_transformers(path, saved.get("prompts") or {})


def from_stanford(saved: Facts) -> Facts:
    return {
        "query": saved.get("query_token_id") or "[unused0]",
        "document": saved.get("doc_token_id") or "[unused1]",
        "query_length": saved.get("query_maxlen") or 32,
        "document_length": saved.get("doc_maxlen"),
        "attend": bool(saved.get("attend_to_mask_tokens")),
        "skip": string.punctuation if saved.get("mask_punctuation", True) else "",
    }


def from_pylate(saved: Facts) -> Facts:
    expands = saved.get("do_query_expansion", True)
    skip = saved.get("skiplist_words")
    return {
        "query": saved.get("query_prefix") or "",
        "document": saved.get("document_prefix") or "",
        "query_length": (saved.get("query_length") or 32) if expands else None,
        "document_length": saved.get("document_length"),
        "attend": bool(saved.get("attend_to_expansion_tokens")),
        "skip": string.punctuation if skip is None else skip,
    }


def from_sentence_transformers(path: str, prompts: Facts) -> Facts:
    base = read_json(transformer(path), "sentence_bert_config.json") or {}
    expansion = base.get("query_expansion") or {}
    folders = [folder for kind, folder in modules(path) if kind == "MultiVectorMask"]
    masks = [read_json(folder, "config.json") or {} for folder in folders]
    return {
        "query": prompts.get("query") or "",
        "document": prompts.get("document") or "",
        "query_length": expansion.get("length"),
        "document_length": base.get("document_length"),
        "attend": bool(expansion.get("attend")),
        "skip": [word for mask in masks for word in mask.get("skiplist_words") or []],
    }
