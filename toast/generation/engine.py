"""A language model as its folder holds it, and one use of it with what stands around: caches, sampler, constraint.

Knows where each comes from; does not know what is asked of it.
"""

from __future__ import annotations

import os

from toast import kernels, loaded, store
from toast.errors import BadInput, UsageError
from toast.filters import marks_for
from toast.generation.chat_template import Template
from toast.generation.tokenizer import Detokenizer, Tokenizer
from toast.store import catalog
from toast.store.folder import read_config
from toast.task import need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.command import Call
    from toast.generation.constrain import Constraint
    from toast.generation.prefix_cache import PrefixCache
    from toast.generation.sample import Sampler

    Messages = list[dict[str, Any]]  # {"role", "content"}


class Reader:
    """What a model folder holds besides weights: how the model reads and writes. Immutable.

    ends: ids that end a text; end: the one to write where one is wanted. context: tokens that it sees at once.
    defaults: of a Sampler. marks: (begin, end) of its reasoning, None for a model that does not reason.
    """

    def __init__(self, folder: str) -> None:
        from toast.generation import decoder

        self.path, self.config = folder, read_config(folder)
        self.tokenizer, self.template = Tokenizer(folder), Template(folder)
        named = [self.tokenizer.id(name) for name in decoder.end_names(folder)]
        sources = [*decoder.end_tokens(folder, self.config), {id for id in named if id is not None}]
        self.ends = frozenset(id for source in sources for id in source)
        self.end = min(next(filter(None, sources), self.ends), default=None)
        self.context = decoder.context(folder, self.config)
        self.defaults = catalog.sampling(folder) | decoder.sampling(folder)
        self.marks = marks_for(lambda token: self.tokenizer.id(token) is not None)


class LanguageModel(Reader):
    """The whole: immutable, for any number of uses at once. model: ids (B, L), cache=caches -> logits (B, L, V)."""

    def __init__(self, folder: str) -> None:
        from toast.generation import decoder

        super().__init__(folder)
        self.model, self.config = decoder.load(folder)

    def caches(self) -> list[Any]:
        """New caches for one text."""
        from toast.generation import decoder

        return decoder.caches(self.model)


class Engine:
    """One use of a language model: what a Call's environment adds to it."""

    def __init__(self, call: Call, name: str, *, weights: bool = True) -> None:
        self.call, self.name = call, name
        need(name, store.find(call, name), "generate", "judge")
        # without weights nothing is asked of it but to read
        kind: Any = LanguageModel if weights else Reader
        self.language: LanguageModel = loaded.load(call, name, kind)
        if call.verbose and weights:
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
        """A sampler by what was asked, else by the model's generation_config or catalog entry; greedy without either.

        Who asks for temperature 0 gets the likeliest token, whatever it repeats."""
        from toast.generation.sample import Sampler

        asked = {name: value for name, value in asked.items() if value is not None}
        plain = {"dry": 0.0, "end": 0.0} if asked.get("temperature") == 0 else {}
        return Sampler(**self.language.defaults | plain | asked)

    def detokenizer(self) -> Detokenizer:
        """A stream of text that shows the marks of reasoning."""
        tokenizer, marks = self.tokenizer, "".join(self.marks or ())
        return Detokenizer(tokenizer, {i for i in tokenizer.special if (tokenizer.core.id_to_token(i) or " ") in marks})

    def prompt(self, messages: Messages, *, template: bool = True, prefill: str = "") -> tuple[str, list[int]]:
        """The text that the model reads, and its ids."""
        own = self.language.template
        if template and own.source:
            text = self._rendered(messages) + prefill
            return text, self.tokenizer.encode(text)
        text = "\n\n".join(m["content"] for m in messages) + prefill
        ids = self.tokenizer.encode(text, special=True)
        if not ids:
            raise UsageError("an empty prompt, and the model has no token that begins a text")
        return text, ids

    def _rendered(self, messages: Messages) -> str:
        """By the template; system text stands in the first question where the template has no place for it."""
        render, cache = self.language.template.render, os.path.join(store.home(self.call), "chat")
        first, *rest = messages
        if first["role"] != "system" or not rest or rest[0]["role"] != "user":
            return render(messages, cache)
        try:
            text = render(messages, cache)
            if first["content"].strip() in text:
                return text
        except BadInput:
            pass
        question = {**rest[0], "content": f"{first['content']}\n\n{rest[0]['content']}"}
        return render([question, *rest[1:]], cache)
