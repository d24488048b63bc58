"""A language model as its folder holds it, and one use of it with what stands around: caches, sampler, constraint.

Knows where each comes from; does not know what is asked of it.
"""

from __future__ import annotations

import os

from toast import kept, kernels, loaded, options, store
from toast.errors import BadInput, BadModel, UsageError
from toast.filters import marks_for
from toast.generation import prompt
from toast.generation.chat_template import Template
from toast.generation.tokenizer import Detokenizer, Tokenizer
from toast.store import adapter as adapters
from toast.store import catalog
from toast.store.config import text_part
from toast.store.folder import read_config
from toast.task import expect, need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.command import Call
    from toast.generation.constrain import Constraint, Guide
    from toast.generation.prefix_cache import PrefixCache
    from toast.generation.prompt import Think
    from toast.generation.reasoning import AfterReasoning, ReasoningMarks
    from toast.generation.sample import Sampler
    from toast.generation.shared_model import SharedModel

    Messages = list[dict[str, Any]]  # {"role", "content"}
    Variables = dict[str, Any]  # of a chat template

# control tokens that end a text in every model that has them, whatever its files say
ENDS = {"<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|return|>"}
BLANKS = 4  # tokens of blanks that a template may write after it has begun the reasoning


class Reader:
    """What a model folder holds besides weights: how the model reads and writes. Immutable.

    adapter: the folder of what changes the model; one with a tokenizer replaces the base's.
    ends: ids that end a text; end: the one to write where one is wanted. context: tokens that it sees at once.
    defaults: of a Sampler. marks: (begin, end) of its reasoning, None for a model that does not reason.
    """

    def __init__(self, folder: str, adapter: str = "") -> None:
        from toast.generation import decoder

        self.path, self.adapter, self.config = folder, adapter, read_config(folder)
        words = adapters.wording(folder, adapter)
        self.template = Template(words)
        self.tokenizer = Tokenizer(words, self.template.source or "")
        if words != folder and self.tokenizer.core.get_vocab_size() > self.size:
            raise BadModel(f"{words}: its tokenizer has more tokens than the base, {self.size}")
        named = [self.tokenizer.id(name) for name in decoder.end_names(words)]
        sources = [*decoder.end_tokens(folder, self.config), {id for id in named if id is not None}]
        sources = [{id for id in source if 0 <= id < self.size} for source in sources]
        told = {id for source in sources for id in source}
        known = {id for name, id in self.tokenizer.controls.items() if name in ENDS}
        self.ends = frozenset(told | prompt.turn_ends(self.tokenizer, self.template, told) | known)
        self.end = min(next(filter(None, sources), self.ends), default=None)
        self.context = decoder.context(folder, self.config)
        self.defaults = catalog.sampling(folder) | decoder.sampling(folder)
        self.marks = marks_for(lambda token: self.tokenizer.id(token) is not None)

    def prompt(
        self, messages: Messages, cache: str | None = None, *,
        think: Think | None = None, variables: Variables | None = None, prefill: str = "",
    ) -> tuple[str, list[int]]:  # fmt: skip
        """The text that the model reads of messages, by its chat template, and its ids; the texts stay texts.

        cache: a folder for what a static template comes to. variables: of the template, before what `think` gives
        it. prefill: how the answer begins; where the template has begun the reasoning, that is closed first."""
        think, source = think or prompt.Think(), self.template.source or ""
        given = think.variables(source) | (variables or {})
        return prompt.encode(
            self.tokenizer, lambda *hidden: self._rendered(*hidden, cache=cache), think.told(messages, source),
            variables=given, prefill=prefill, marks=self.marks, answer=think.on is False,
        )  # fmt: skip

    def _rendered(self, messages: Messages, variables: Variables, *, cache: str | None) -> str:
        """By the template; system text stands in the first question where the template has no place for it."""
        render = self.template.render
        if len(messages) < 2 or [m["role"] for m in messages[:2]] != ["system", "user"]:
            return render(messages, cache, variables)
        first, *rest = messages
        try:
            text = render(messages, cache, variables)
            if first["content"].strip() in text:
                return text
        except BadInput:
            pass
        question = {**rest[0], "content": f"{first['content']}\n\n{rest[0]['content']}"}
        return render([question, *rest[1:]], cache, variables)

    def reasoning(self) -> ReasoningMarks | None:
        """The ids of the model's marks; None for one that does not reason."""
        from toast.generation.reasoning import ReasoningMarks

        if self.marks is None:
            return None
        begin, end = (self.tokenizer.encode(mark, parse=True) for mark in self.marks)
        turn = "<|end|><|start|>assistant"  # harmony: the answer is a message of its own
        apart = end[0] == begin[0] and {"<|end|>", "<|start|>"} <= self.tokenizer.controls.keys()
        close = self.tokenizer.encode(turn, parse=True) + end if apart else end
        return ReasoningMarks(begin, end, close, ends=self.ends, size=self.size)

    @property
    def size(self) -> int:
        """The number of the model's logits."""
        return text_part(self.config).get("vocab_size") or self.tokenizer.core.get_vocab_size()


class LanguageModel(Reader):
    """The whole: immutable, for any number of uses at once. model: ids (B, L), cache=caches -> logits (B, L, V)."""

    light = True  # nobody changes its layers

    def __init__(self, folder: str, adapter: str = "") -> None:
        from toast.generation import decoder, device

        super().__init__(folder, adapter)
        plain = self.light and not adapter and kept.memory is None
        self.model, self.config = decoder.light(folder) if plain else decoder.load(folder)
        if adapter:
            from toast.generation import lora

            lora.apply(self.model, adapter, folder)
        device.wire(self.model)
        self.shared: SharedModel | None = None
        if kept.memory is not None:  # a process that stays works for many at once
            from toast.generation.shared_model import SharedModel

            self.shared = SharedModel(self.model)

    def caches(self) -> list[Any]:
        """New caches for one text."""
        from toast.generation import decoder

        return decoder.caches(self.model)

    def seat(self, caches: list[Any]) -> Any:
        """What to call as the model for the text with these caches: the model, or a Seat at it (`shared_model.py`)."""
        return self.shared.seat(caches) if self.shared else self.model


class Divided(LanguageModel):
    """One process's part of a language model that several share."""

    light = False

    def __init__(self, folder: str) -> None:
        from toast.generation import distributed

        super().__init__(folder)
        distributed.divide(self.model, self.config, os.path.basename(folder))


def open_language(call: Call, name: str, adapter: str | None = None, *, weights: bool = True) -> LanguageModel:
    """The language model called `name`, which may be an adapter's name, or changed by another adapter.

    weights: False where nothing is asked of it but to read. Raises UsageError, ModelNotFound, BadModel."""
    purposes = "generate", "judge"
    expect(call, name, *purposes)
    base, beside = adapters.resolve(call, name, *purposes, adapter=adapter)
    need(call, base, *purposes)
    kind: Any = LanguageModel if weights else Reader
    if weights and "MLX_RANK" in call.env:
        if any(beside):
            raise UsageError("an adapter is for one process", "toast without mlx.launch")
        kind = Divided
    return loaded.load(call, base, kind, *beside)


class Engine:
    """One use of a language model: what a Call's environment and its options add to it.

    think: what is asked of its reasoning. variables: of its chat template. adapter: a folder; kv_bits: of its keys
    and values, as `open_language` and `kv_cache.py` take them."""

    def __init__(
        self, call: Call, name: str, *,
        weights: bool = True, think: Think | None = None, variables: Variables | None = None,
        adapter: str | None = None, kv_bits: int | None = None,
    ) -> None:  # fmt: skip
        self.call, self.name = call, name
        self.think, self.variables = think or prompt.Think(), variables or {}
        self.language = open_language(call, name, adapter, weights=weights)
        self.kv_bits, self.kv_group = kv_bits, 0
        if kv_bits and weights:
            from toast.generation import kv_cache

            self.kv_group = kv_cache.group_for(self.language.model, self.language.caches(), name)
        if call.verbose and weights:
            fused, layers = kernels.fused_layers(self.language.model)
            call.info(f"fused layers: {fused} of {layers}")
        self.tokenizer, self.context = self.language.tokenizer, self.language.context
        self.ends, self.marks = self.language.ends, self.language.marks

    def caches(self) -> list[Any]:
        """New caches for one text."""
        caches = self.language.caches()
        if not self.kv_bits:
            return caches
        from toast.generation.kv_cache import QuantizedKV

        return [QuantizedKV(self.kv_bits, self.kv_group) for _ in caches]

    def prefix(self) -> PrefixCache | None:
        """The cache of prompts on disk; None where the environment gives it no room."""
        from toast.generation.prefix_cache import PrefixCache

        asked = self.call.env.get("TOAST_PREFIX_MB") or "2048"
        room = options.whole(asked)
        if room is None:
            raise UsageError(f"TOAST_PREFIX_MB={asked} is not a number of megabytes")
        folder = os.path.join(store.home(self.call), "prefix")
        if not room:
            return None
        form = f"{self.kv_bits} bits" if self.kv_bits else ""
        return PrefixCache(folder, self.language.path, room << 20, adapter=self.language.adapter, form=form)

    def too_long(self, count: int | str, hint: str) -> BadInput:
        """What to raise for a prompt of so many tokens."""
        return BadInput(f"the prompt is {count} tokens, {self.name} reads {self.context}", hint)

    def constraint(self, kind: str, text: str) -> Constraint:
        """A compiled constraint on answers (`constrain.py`)."""
        from toast.generation.constrain import Constraint

        found = Constraint(self.tokenizer, self.ends, size=self.language.size, kind=kind, text=text)
        for note in found.notes:
            self.call.info(note)
        return found

    def is_reasoning(self, ids: list[int]) -> bool:
        """Whether a prompt ends inside reasoning that it has begun itself."""
        if self.marks is None:
            return False
        begin = self.tokenizer.encode(self.marks[0], parse=True)
        for at in range(len(ids) - len(begin), max(-1, len(ids) - len(begin) - BLANKS), -1):
            if ids[at : at + len(begin)] == begin:
                return not self.tokenizer.core.decode(ids[at + len(begin) :], skip_special_tokens=False).strip()
        return False

    def begins_mark(self, id: int) -> bool:
        """Whether a mark of reasoning begins with a token."""
        marks = self.language.reasoning()
        return marks is not None and id in (marks.begin[0], marks.end[0])

    def guide(self, ids: list[int], limit: int, constraint: Constraint | None) -> Guide | AfterReasoning | None:
        """What says which tokens may follow a prompt, at most `limit`: a constraint, after any reasoning; None: all.

        A budget of --think ends the reasoning too."""
        budget = self.think.budget
        if self.marks is None or (constraint is None and budget is None):
            return constraint.guide(limit) if constraint else None
        from toast.generation.reasoning import AfterReasoning

        marks, make = self.language.reasoning(), constraint.guide if constraint else None
        assert marks is not None
        return AfterReasoning(marks, limit=limit, inside=self.is_reasoning(ids), budget=budget, make=make)

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
        """The text that the model reads, and its ids; without a template, the contents one after the other."""
        if template and self.language.template.source:
            cache = os.path.join(store.home(self.call), "chat")
            return self.language.prompt(
                messages, cache, think=self.think, variables=self.variables, prefill=prefill
            )  # fmt: skip
        text = "\n\n".join(m["content"] for m in messages) + prefill
        ids = self.tokenizer.encode(text, special=True)
        if not ids:
            raise UsageError("an empty prompt, and the model has no token that begins a text")
        return text, ids
