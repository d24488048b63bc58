"""Messages to the ids that a model reads: control tokens come from its chat template, everything else is text.

A text of a message that spells a control token is hidden from the template by characters for private use, and comes
back once the template's own control tokens are found. Knows no files and no model.
"""

from __future__ import annotations

from toast import json_text, options
from toast.errors import ToastError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from toast.filters import Marks
    from toast.generation.chat_template import Template
    from toast.generation.tokenizer import Tokenizer

    Messages = list[dict[str, Any]]  # {"role", "content"}
    Variables = dict[str, Any]

PRIVATE = 0xF0000  # the first of the characters that nobody but us gives a meaning
SWITCHES = ("enable_thinking", "thinking")  # what templates call it: Qwen3, SmolLM3, GLM; DeepSeek, Granite
WORDS = {False: "/no_think", True: "/think"}  # in the system prompt, where a template knows no switch


class Think:
    """What is asked of a model's reasoning. on: None for what the model does by itself. budget: its tokens, at most."""

    def __init__(self, on: bool | None = None, budget: int | None = None) -> None:  # noqa: FBT001  named by callers
        self.on, self.budget = on, budget

    @classmethod
    def of(cls, word: str | None) -> Think:
        """By an option's value: on, off or a number of tokens."""
        if word is None or word == "on":
            return cls(on=None if word is None else True)
        if word == "off":
            return cls(on=False, budget=0)
        budget = options.whole(word)
        if budget is None:
            raise UsageError(f"--think must be on, off or a number of tokens, not {word!r}")
        return cls(on=True, budget=budget)

    def variables(self, source: str) -> Variables:
        """What tells the template of that source."""
        if self.on is None:
            return {}
        found: Variables = {name: self.on for name in SWITCHES if name in source}
        if not self.on and "reasoning_effort" in source:
            found["reasoning_effort"] = "low"  # gpt-oss knows no less
        return found

    def told(self, messages: Messages, source: str) -> Messages:
        """The messages, with the word for a template that reads it in the system prompt."""
        if self.on is None or self.variables(source) or WORDS[self.on] not in source:
            return messages
        if not (messages and messages[0]["role"] == "system"):
            messages = [{"role": "system", "content": ""}, *messages]
        first, *rest = messages
        return [{**first, "content": f"{first['content']} {WORDS[self.on]}".strip()}, *rest]


def variables(words: list[str]) -> Variables:
    """KEY=VALUE each; a value is JSON, else text."""
    found: Variables = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier() or key == "messages":
            raise UsageError(f"--template {word!r} is not KEY=VALUE", "--template enable_thinking=false")
        try:
            found[key] = json_text.loads(value)
        except (ValueError, RecursionError):
            found[key] = value
    return found


class Hidden:
    """Texts in which nothing spells a control token, and the way back.

    said: all that the texts are taken from, whose own private characters are left alone."""

    def __init__(self, tokenizer: Tokenizer, said: Any) -> None:
        self.tokenizer, self.said = tokenizer, said
        self.texts: dict[str, str] = {}  # character -> what it stands for

    def hide(self, value: Any) -> Any:
        """A text, or whatever holds some, without its control tokens."""
        if isinstance(value, dict):
            return {self.hide(key): self.hide(child) for key, child in value.items()}
        if isinstance(value, list):
            return [self.hide(child) for child in value]
        return self._hide(value) if isinstance(value, str) else value

    def show(self, text: str) -> str:
        return text.translate({ord(character): hidden for character, hidden in self.texts.items()})

    def _hide(self, text: str) -> str:
        parts, done = [], 0
        for start, stop in self.tokenizer.spelt_in(text):
            parts += [text[done:start], self._character(text[start:stop])]
            done = stop
        return "".join([*parts, text[done:]])

    def _character(self, text: str) -> str:
        """The private character that stands for a text."""
        for character, hidden in self.texts.items():
            if hidden == text:
                return character
        number = PRIVATE
        while chr(number) in self.texts or _holds(self.said, chr(number)):
            number += 1
        self.texts[chr(number)] = text
        return chr(number)


def _holds(value: Any, character: str) -> bool:
    """Whether a character is in any of the texts of a value."""
    if isinstance(value, (dict, list)):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return any(_holds(child, character) for child in parts)
    return isinstance(value, str) and character in value


def closing(text: str, marks: Marks | None) -> str:
    """What has to follow a prompt for the answer to begin without reasoning."""
    if marks is None:
        return ""
    bare = text.rstrip()
    if bare.endswith(marks[0]):  # as Qwen3's template does it: an empty block
        return ("\n" if bare != text else "\n\n") + marks[1] + "\n\n"
    channels = marks[0].partition(">")[0] == marks[1].partition(">")[0]  # harmony: the mark begins the answer
    return marks[1] if channels and not bare.endswith(marks[1]) else ""


def turn_ends(tokenizer: Tokenizer, template: Template, told: set[int]) -> set[int]:
    """What the template writes after an assistant's turn, where no end that the model's files tell of is in it.

    Takes jinja2, which is why not always."""
    source = template.source
    names = {tokenizer.core.id_to_token(i) for i in told if i in range(1 << 32)}
    if not source or any(name and name in source for name in names):
        return set()
    if "eos_token" in source and template.tokens.get("eos_token") in names:
        return set()
    turns = [{"role": "user", "content": f"{chr(PRIVATE)}"}, {"role": "assistant", "content": f"{chr(PRIVATE + 1)}"}]
    try:
        text = template.render(turns, variables={"add_generation_prompt": False})
    except ToastError:  # whoever asks for a prompt is told
        return set()
    user, before, said, after = text.partition(chr(PRIVATE))[0], *text.partition(chr(PRIVATE + 1))
    begins = [tokenizer.controls_in(part)[-1:] for part in (user, before)]
    ends = tokenizer.controls_in(after)[:1] if said else []
    follows = bool(ends) and after.lstrip().startswith(tokenizer.core.id_to_token(ends[0]) or " ")
    return set(ends) if follows and ends not in begins else set()


def encode(
    tokenizer: Tokenizer, render: Callable[[Messages, Variables], str], messages: Messages, *,
    variables: Variables | None = None, prefill: str = "", marks: Marks | None = None, answer: bool = False,
) -> tuple[str, list[int]]:  # fmt: skip
    """(text, ids) of what `render` makes of the messages and variables, and of how the answer begins.

    marks: of the model's reasoning. answer: what follows is to be the answer, as it is where that has begun."""
    variables = variables or {}
    hidden = Hidden(tokenizer, [messages, variables, prefill])
    text = render(hidden.hide(messages), hidden.hide(variables))
    if prefill or answer:
        text += closing(text, marks) + hidden.hide(prefill)
    if not hidden.texts:
        return text, tokenizer.encode(text, parse=True)
    return hidden.show(text), _ids(tokenizer, text, hidden)


def _ids(tokenizer: Tokenizer, text: str, hidden: Hidden) -> list[int]:
    """Ids of a rendered text: of its parts between control tokens, those with hidden ones are encoded anew."""
    found = tokenizer.parsed(text)
    ids: list[int] = []
    before, begun, part = "", 0, []  # the control token before, where its text ends, ids since
    for i, (start, stop) in [*zip(found.ids, found.offsets, strict=True), (-1, (len(text), len(text)))]:
        if i >= 0 and not (tokenizer.is_control(i) and start < stop):
            part.append(i)
            continue
        between = text[begun:start]
        shown = hidden.show(between)
        ids += part if shown == between else tokenizer.encode_after(before, shown)
        if i >= 0:
            ids.append(i)
        before, begun, part = text[start:stop], stop, []
    return ids
