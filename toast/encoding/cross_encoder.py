"""(query, text) pairs to logits, by the recipe of the model at hand; labels of classifiers.

Owns: cross-encoders, Qwen3-Reranker's template, default activations. Does not know: ranking.
"""

from __future__ import annotations

import mlx.core as mx

from toast.encoding import tokens
from toast.errors import BadModel, UsageError
from toast.models import encoder
from toast.pipes import clean
from toast.store.folder import blame, read_config, transformer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Config = dict[str, Any]

# The published recipe of Qwen3-Reranker (its model card).
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
SHARE = 0.75  # of the limit is the most that a query may take: the rest is for the text
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


def scorer(path: str) -> Classifier | YesNo:
    """The scorer in folder `path`, immutable. BadModel when it has no head."""
    path = transformer(path)
    config = read_config(path)
    with blame(path):
        return YesNo(path, config) if config.get("model_type") == "qwen3" else Classifier(path, config)


class Classifier:
    """A sequence classifier: a cross-encoder, a text classifier or an NLI model.

    labels: names in the order of the logits, no two alike; renamed: what was done for that, a line each.
    activation: the default of sentence-transformers' CrossEncoder, from the config. regression: the logits are
    values; exclusive: False where each label is decided by itself. max_length: tokens of a pair, special ones
    included.
    """

    cuts_longest = True  # of a pair that is cut, whichever is longer

    def __init__(self, path: str, config: Config) -> None:
        self.tokens, self.model = tokens.load(path), encoder(path)
        self.max_length = self.tokens.max_length
        if self.model.head is None:
            raise BadModel(f"{path}: no classification head", "embedding models: embed")
        self.labels, self.renamed = labels(config, self.model.outputs)
        self.regression = config.get("problem_type") == "regression"
        self.activation = activation(config, len(self.labels))
        self.exclusive = self.activation is not mx.sigmoid

    def fitting(self, query: str, instruction: str | None = None) -> str:
        """What of a query leaves room for a text beside it. instruction: is for others."""
        return self.tokens.cut(query, int(SHARE * (self.max_length - self.tokens.special_tokens(pair=True))))

    def encode(
        self, inputs: list[Any], *, truncate: str = "longest_first", instruction: str | None = None,
        whole: bool = True,
    ) -> list[Any]:  # fmt: skip
        """Texts or (query, text) pairs -> Encodings, as Tokens.encode. instruction: is for others."""
        return self.tokens.encode(inputs, truncate=truncate, whole=whole)

    def logits(self, encodings: list[Any]) -> mx.array:
        """(B, len(labels)) float32."""
        return self.model.logits(*tokens.batch(encodings))

    def probabilities(self, logits: mx.array) -> mx.array:
        """Softmax over the labels, or sigmoid of each where labels are not exclusive."""
        if len(self.labels) == 1 or self.activation is mx.sigmoid:
            return mx.sigmoid(logits)
        return mx.softmax(logits, axis=-1)


def _head(instruction: str, query: str) -> str:
    """What stands before the text in Qwen3-Reranker's template."""
    return f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>:"


def labels(config: Config, outputs: int) -> tuple[list[str], list[str]]:
    """(names of the outputs by id2label of the config, what had to be changed so that each is a line of its own)."""
    given = {str(key): name for key, name in (config.get("id2label") or {}).items()}
    names: list[str] = []
    told = []
    for i in range(outputs):
        own = str(given[str(i)]) if given.get(str(i)) is not None else f"LABEL_{i}"
        plain = " ".join("".join(c if c.isprintable() else " " for c in clean(own)).split()) or f"LABEL_{i}"
        name, more = plain, 2
        while name in names:
            name, more = f"{plain} ({more})", more + 1
        if name != own:
            told.append(f"label {i}, {own[:40]!r}, goes by {name!r}")
        names.append(name)
    return names, told


def activation(config: Config, n: int) -> Callable[[mx.array], mx.array]:
    """Logits to scores: what the config names, else sigmoid for one label and nothing for more."""
    saved = (config.get("sentence_transformers") or {}).get("activation_fn")
    saved = saved or config.get("sbert_ce_default_activation_function")
    if saved is None and config.get("problem_type") == "multi_label_classification":
        return mx.sigmoid
    known: dict[str, Callable[[mx.array], mx.array]] = {"Identity": lambda x: x, "Sigmoid": mx.sigmoid, "Tanh": mx.tanh}
    return known.get(str(saved).rpartition(".")[2], mx.sigmoid if n == 1 else known["Identity"])


class YesNo:
    """Qwen3-Reranker: the logit of "yes" minus that of "no" as the next token, one label."""

    cuts_longest = False

    def __init__(self, path: str, config: Config) -> None:
        self.tokens = tokens.load(path)
        self.max_length = min(self.tokens.max_length, 8192)  # the recipe's limit
        self.model, self.labels, self.activation = encoder(path), ["yes"], mx.sigmoid
        self.prefix, self.suffix = self.ids(PREFIX), self.ids(SUFFIX)
        self.answers = [id for word in ("yes", "no") if (id := self.tokens.id(word)) is not None]
        if len(self.answers) < 2:
            raise BadModel(f"{path}: the tokenizer has no token for yes or no")

    def ids(self, text: str) -> list[int]:
        """Bare ids of a text of any length."""
        return self.tokens.encode([text], special=False, truncate=None)[0].ids

    def encode(
        self, inputs: list[Any], *, truncate: str = "longest_first", instruction: str | None = None,
        whole: bool = True,
    ) -> list[tokens.Row]:  # fmt: skip
        """(query, text) pairs -> Rows; the body is cut to what the template leaves of the limit.
        instruction: what counts as an answer, None for the recipe's own.

        .overflowing: the further pieces of the text, each behind the same query; all of them where it is `whole`.
        """
        instruction = instruction or INSTRUCTION
        return [self.row(query, text, instruction, whole=whole) for query, text in inputs]

    @property
    def room(self) -> int:
        """Tokens that the template leaves of the limit."""
        return self.max_length - len(self.prefix) - len(self.suffix)

    def fitting(self, query: str, instruction: str | None = None) -> str:
        """What of a query leaves room for a text beside it; UsageError when the instruction leaves none."""
        most = int(SHARE * self.room) - len(self.ids(_head(instruction or INSTRUCTION, "")))
        if most < 1:
            raise UsageError("the instruction is longer than the model reads")
        return self.tokens.cut(query, most)

    def row(self, query: str, text: str, instruction: str, *, whole: bool = True) -> tokens.Row:
        """The ids of a pair, further pieces of a long text in `overflowing`."""
        limit, head = self.room, _head(instruction, query)
        asked = f"{head} {text}"
        body = self.ids(asked if whole else self.tokens.head(asked, limit))
        pieces = [body[:limit]]
        if len(body) > limit:
            start = self.ids(head)
            step = limit - len(start)
            rest = range(limit, len(body), step)
            pieces += [start + body[i : i + step] for i in rest]
        rows = [tokens.Row(self.prefix + piece + self.suffix) for piece in pieces]
        return tokens.Row(rows[0].ids, rows[1:])

    def logits(self, encodings: list[tokens.Row]) -> mx.array:
        """(B, 1) float32."""
        ids, lengths, _ = tokens.batch(encodings)
        yes_no = self.model.next_logits(ids, lengths, self.answers)
        return yes_no[:, :1] - yes_no[:, 1:]

    def probabilities(self, logits: mx.array) -> mx.array:
        """The sigmoid."""
        return mx.sigmoid(logits)
