"""A language model as a classifier: how probable each label is as its answer.

Owns the question and the labels' log-probabilities. Knows nothing of records or of output.
"""

from __future__ import annotations

from copy import deepcopy

import mlx.core as mx

from toast.encoding.sentence_transformers import finite
from toast.errors import BadText, UsageError
from toast.generation.engine import open_language
from toast.generation.generate import forward, prefill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rerank.blocks import Row
    from rerank.engines import Use
    from toast.command import Call

QUESTION = "Which label fits the text? Answer with the label alone.\nLabels:\n{labels}\n\nText: {text}"
CONTEXT = 4096  # tokens of a prompt, at most


class Choices:
    """Probabilities of the labels, each as a whole answer up to its end, among them all."""

    def __init__(self, call: Call, name: str, use: Use) -> None:
        if use.multi:
            raise UsageError(f"{name} chooses one label, so --multi has no meaning")
        self.name = name
        language = open_language(call, name)
        self.model, self.make_caches = language.model, language.caches
        self.tokenizer, self.prompt, self.template = language.tokenizer, language.prompt, language.template
        self.labels, self.cut, self.long, self.multi = use.names, 0, use.long, False
        self.listed = "\n".join(
            f"- {label.name}: {label.about}" if label.about != label.name else f"- {label.name}" for label in use.labels
        )
        self.limit = min(language.config.get("max_position_embeddings") or CONTEXT, CONTEXT) - 64
        self.answers = self._answers([language.end] if language.end is not None else [])
        self.common: list[int] = []
        self.caches = language.caches()
        self._prefill_common()

    def _answers(self, ends: list[int]) -> list[list[int]]:
        """The ids of each label as an answer, with the token that ends it."""
        before = "" if self.template.source else " "
        return [self.tokenizer.encode(before + label) + ends for label in self.labels]

    def _prompt(self, text: str) -> list[int]:
        question = QUESTION.format(labels=self.listed, text=text)
        if self.template.source is None:
            return self.tokenizer.encode(question + "\nLabel:", special=True)
        return self.prompt([{"role": "user", "content": question}])[1]

    def _prefill_common(self) -> None:
        """Prefill once what every prompt begins with."""
        one, other = self._prompt("a"), self._prompt("The")
        same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
        self.common = one[:same]
        prefill(self.model, self.caches, self.common)

    def probabilities(self, texts: list[str]) -> list[Row]:
        """A score of each label, for each text; None for one without a word."""
        if self.long == "error":
            self._refuse_long(texts)
        return [self._scores(text) if text.strip() else None for text in texts]

    def _refuse_long(self, texts: list[str]) -> None:
        """BadText of all that are over the limit, before any is computed."""
        over = [i for i, text in enumerate(texts) if self._ids(text) is None]
        if over:
            raise BadText(over, f" is longer than {self._room()} tokens", "--long chooses")

    def _scores(self, text: str) -> list[float]:
        prompts = self._prompts(text)
        logs = mx.stack([self._log_probabilities(ids) for ids in prompts])
        if self.long == "mean":
            sizes = mx.array([len(ids) for ids in prompts], mx.float32)[:, None]
            found = (logs * sizes).sum(axis=0) / sizes.sum()
        else:
            found = logs.max(axis=0)
        row: Any = finite(self.name, mx.softmax(found)).tolist()
        return row

    def _prompts(self, text: str) -> list[list[int]]:
        """The ids of prompts with the text, or with its pieces where it is over the limit."""
        ids = self._ids(text)
        if ids is not None:
            return [ids]
        self.cut += 1
        room = self._room()
        if self.long == "truncate":
            return [self._prompt(self.tokenizer.decode(self.tokenizer.first(text, room)))]
        whole = self.tokenizer.encode(text)
        return [self._prompt(self.tokenizer.decode(whole[at : at + room])) for at in range(0, len(whole), room)]

    def _ids(self, text: str) -> list[int] | None:
        """The ids of a prompt with the whole text, None where they are over the limit."""
        if len(text) > 16 * self.limit and len(self.tokenizer.first(text, self.limit)) == self.limit:
            return None  # for certain
        ids = self._prompt(text)
        return ids if len(ids) <= self.limit else None

    def _room(self) -> int:
        """Tokens that a prompt leaves to a text."""
        return max(1, self.limit - len(self._prompt("")))

    def _log_probabilities(self, ids: list[int]) -> mx.array:
        """log p(label, end | prompt) of each label: (K,)."""
        shared = ids[: len(self.common)] == self.common
        caches = deepcopy(self.caches) if shared else self.make_caches()
        rest = ids[len(self.common) :] if shared else ids
        prefill(self.model, caches, rest[:-1])
        first = self._logs(rest[-1:], caches)[-1]
        found = []
        for answer in self.answers:
            total = first[answer[0]]
            if len(answer) > 1:
                logs = self._logs(answer[:-1], deepcopy(caches))
                total = total + sum(logs[i, token] for i, token in enumerate(answer[1:]))
            found.append(total)
        return mx.stack(found)

    def _logs(self, ids: list[int], caches: list[Any]) -> mx.array:
        """Log-probabilities of what follows each of the ids: (L, V) float32."""
        logits = forward(self.model, mx.array([ids]), caches)[0].astype(mx.float32)
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)
