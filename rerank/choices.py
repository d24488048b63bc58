"""A language model as a classifier: how probable each label is as its answer.

Owns the question and the labels' log-probabilities. Knows nothing of records or of output.
"""

from copy import deepcopy

import mlx.core as mx

from toast import store
from toast.errors import UsageError
from toast.generation import decoder
from toast.generation.chat_template import Template
from toast.generation.generate import prefill
from toast.generation.tokenizer import Tokenizer

QUESTION = "Which label fits the text? Answer with the label alone.\nLabels:\n{labels}\n\nText: {text}"
CONTEXT = 4096  # tokens of a prompt, at most


class Choices:
    """Probabilities of the labels, each as a whole answer up to its end, among them all."""

    def __init__(self, call, name, path, labels, multi):
        if multi:
            raise UsageError(f"{name} chooses one label, so --multi has no meaning")
        path = store.as_folder(call, path)
        self.model, config = decoder.load(path)
        self.tokenizer, self.template = Tokenizer(path), Template(path)
        self.labels, self.cut = [label for label, _ in labels], 0
        self.listed = "\n".join(f"- {label}: {about}" if about != label else f"- {label}" for label, about in labels)
        self.limit = min(config.get("max_position_embeddings") or CONTEXT, CONTEXT) - 64
        self.answers = self._answers(sorted(decoder.end_tokens(path, config)))
        self.common, self.caches = [], decoder.caches(self.model)
        self._read_common()

    def _answers(self, ends):
        """The ids of each label as an answer, with the token that ends it."""
        before = "" if self.template.source else " "
        return [self.tokenizer.encode(before + label) + ends[:1] for label in self.labels]

    def _prompt(self, text: str) -> list[int]:
        question = QUESTION.format(labels=self.listed, text=text)
        if self.template.source is None:
            return self.tokenizer.encode(question + "\nLabel:", special=True)
        return self.tokenizer.encode(self.template.render([{"role": "user", "content": question}]))

    def _read_common(self):
        """Read once what every prompt begins with."""
        one, other = self._prompt("a"), self._prompt("The")
        same = next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), 0)
        self.common = one[:same]
        prefill(self.model, self.caches, self.common)

    def probabilities(self, texts: list[str]) -> list[list[float]]:
        return [mx.softmax(self._log_probabilities(self._fitting(text))).tolist() for text in texts]

    def _fitting(self, text):
        """The prompt's ids, of a text that is cut to the limit."""
        ids = self._prompt(text)
        if len(ids) > self.limit:
            self.cut += 1
            kept = self.tokenizer.encode(text)[: max(0, self.limit - len(self._prompt("")))]
            ids = self._prompt(self.tokenizer.decode(kept))
        return ids

    def _log_probabilities(self, ids):
        """log p(label, end | prompt) of each label: (K,)."""
        shared = ids[: len(self.common)] == self.common
        caches = deepcopy(self.caches) if shared else decoder.caches(self.model)
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

    def _logs(self, ids, caches):
        """Log-probabilities of what follows each of the ids: (L, V) float32."""
        logits = self.model(mx.array([ids]), cache=caches)[0].astype(mx.float32)
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)
