"""A loaded model with everything that stands around it: tokenizer, chat template, caches, defaults.

Knows where each comes from; does not know what is asked of it.
"""

import os

from toast import kernels, store
from toast.errors import UsageError
from toast.filters import marks_for
from toast.generation.chat_template import Template
from toast.generation.tokenizer import Detokenizer, Tokenizer


class Engine:
    """A loaded model with everything that stands around it."""

    def __init__(self, call, name: str):
        path = store.folder(call, name)
        kernels.install_for(call)
        from toast.generation import decoder

        self.name, self.path = name, path
        self.tokenizer = Tokenizer(path)
        self.template = Template(path, os.path.join(store.home(call), "chat"))
        self.model, self.config = decoder.load(path)
        self.caches = lambda: decoder.caches(self.model)
        self.ends = decoder.end_tokens(path, self.config)
        self.context = decoder.context(path, self.config)
        self.defaults = decoder.sampling(path)
        self.marks = marks_for(lambda token: self.tokenizer.id(token) is not None)

    def prefix(self, call):
        """The cache of prompts on disk; None where the environment gives it no room."""
        from toast.generation.prefix_cache import PrefixCache

        room = call.env.get("TOAST_PREFIX_MB") or "2048"
        if not room.isdecimal():
            raise UsageError(f"TOAST_PREFIX_MB={room} is not a number of megabytes")
        folder = os.path.join(store.home(call), "prefix")
        return PrefixCache(folder, self.path, int(room) << 20) if int(room) else None

    def constraint(self, kind: str, text: str):
        """A compiled constraint on answers (`constrain.py`)."""
        from toast.generation.constrain import Constraint

        size = (self.config.get("text_config") or self.config)["vocab_size"]
        return Constraint(self.tokenizer, self.ends, size, kind, text)

    def sampler(self, asked: dict):
        """A sampler by what was asked, else by the model's generation_config; greedy without either."""
        from toast.generation.sample import Sampler

        return Sampler(**self.defaults | {k: v for k, v in asked.items() if v is not None})

    def detokenizer(self) -> Detokenizer:
        tokenizer, marks = self.tokenizer, "".join(self.marks or ())
        return Detokenizer(tokenizer, {i for i in tokenizer.special if tokenizer.core.id_to_token(i) in marks})

    def prompt(self, messages: list[dict], template: bool, prefill: str) -> tuple[str, list[int]]:
        """The text that the model reads, and its ids."""
        if template and self.template.source:
            text = self.template.render(messages) + prefill
            return text, self.tokenizer.encode(text)
        text = "\n\n".join(m["content"] for m in messages) + prefill
        return text, self.tokenizer.encode(text, special=True) or self._nothing()

    def _nothing(self):
        raise UsageError("an empty prompt, and the model has no token that begins a text")
