"""A language model as its folder holds it, and one use of it with what stands around: caches, sampler, constraint.

Knows where each comes from; does not know what is asked of it.
"""

from __future__ import annotations

import os

from toast import kernels, loaded, store
from toast.errors import UsageError
from toast.filters import marks_for
from toast.generation.chat_template import Template
from toast.generation.tokenizer import Detokenizer, Tokenizer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.command import Call
    from toast.generation.constrain import Constraint
    from toast.generation.prefix_cache import PrefixCache
    from toast.generation.sample import Sampler

    Messages = list[dict[str, Any]]  # {"role", "content"}


class LanguageModel:
    """What a model folder holds: immutable, for any number of uses at once.

    model: ids (B, L), cache=caches -> logits (B, L, V). ends: ids that end a text. context: tokens that it sees at
    once. defaults: of a Sampler. marks: (begin, end) of its reasoning, None for a model that does not reason.
    """

    def __init__(self, folder: str) -> None:
        from toast.generation import decoder

        self.path = folder
        self.tokenizer, self.template = Tokenizer(folder), Template(folder)
        self.model, self.config = decoder.load(folder)
        self.ends = frozenset(decoder.end_tokens(folder, self.config))
        self.context = decoder.context(folder, self.config)
        self.defaults = decoder.sampling(folder)
        self.marks = marks_for(lambda token: self.tokenizer.id(token) is not None)

    def caches(self) -> list[Any]:
        """New caches for one text."""
        from toast.generation import decoder

        return decoder.caches(self.model)


class Engine:
    """One use of a language model: what a Call's environment adds to it."""

    def __init__(self, call: Call, name: str) -> None:
        self.call, self.name = call, name
        self.language = loaded.load(call, name, LanguageModel)
        if call.verbose:
            fused, layers = kernels.fused_layers(self.language.model)
            call.info(f"fused layers: {fused} of {layers}")
        self.tokenizer, self.context = self.language.tokenizer, self.language.context
        self.ends, self.marks = self.language.ends, self.language.marks

    def prefix(self) -> PrefixCache | None:
        """The cache of prompts on disk; None where the environment gives it no room."""
        from toast.generation.prefix_cache import PrefixCache

        room = self.call.env.get("TOAST_PREFIX_MB") or "2048"
        if not room.isdecimal():
            raise UsageError(f"TOAST_PREFIX_MB={room} is not a number of megabytes")
        folder = os.path.join(store.home(self.call), "prefix")
        return PrefixCache(folder, self.language.path, int(room) << 20) if int(room) else None

    def constraint(self, kind: str, text: str) -> Constraint:
        """A compiled constraint on answers (`constrain.py`)."""
        from toast.generation.constrain import Constraint

        config = self.language.config
        size = (config.get("text_config") or config)["vocab_size"]
        return Constraint(self.tokenizer, self.ends, size=size, kind=kind, text=text)

    def sampler(self, asked: dict[str, Any]) -> Sampler:
        """A sampler by what was asked, else by the model's generation_config; greedy without either."""
        from toast.generation.sample import Sampler

        return Sampler(**self.language.defaults | {k: v for k, v in asked.items() if v is not None})

    def detokenizer(self) -> Detokenizer:
        """A stream of text that shows the marks of reasoning."""
        tokenizer, marks = self.tokenizer, "".join(self.marks or ())
        return Detokenizer(tokenizer, {i for i in tokenizer.special if (tokenizer.core.id_to_token(i) or " ") in marks})

    def prompt(self, messages: Messages, *, template: bool = True, prefill: str = "") -> tuple[str, list[int]]:
        """The text that the model reads, and its ids."""
        own = self.language.template
        if template and own.source:
            text = own.render(messages, os.path.join(store.home(self.call), "chat")) + prefill
            return text, self.tokenizer.encode(text)
        text = "\n\n".join(m["content"] for m in messages) + prefill
        ids = self.tokenizer.encode(text, special=True)
        if not ids:
            raise UsageError("an empty prompt, and the model has no token that begins a text")
        return text, ids
