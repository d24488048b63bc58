"""What is asked: standard input, named files, an instruction and a system prompt become messages.

Owns what is read, and what is cut when it does not fit. Does not know how an answer is made.
"""

import os

from toast import pipes
from toast.engine import Engine
from toast.errors import BadInput, UsageError, os_error
from toast.prompt import message

BYTES_PER_TOKEN = 128  # no vocabulary has longer tokens: input over this times the context cannot fit
LONGEST = 64 << 20  # bytes of input that are cut rather than refused


class Question:
    """Messages for the model, of which `text`, the standard input, may be cut to fit."""

    def __init__(self, text="", instruction="", files=(), system="", history=()):
        self.text, self.instruction, self.files = text, instruction, list(files)
        self.system, self.history = system, list(history)

    def about(self, text: str) -> "Question":
        """The same question about another text."""
        return Question(text, self.instruction, self.files, self.system, self.history)

    def messages(self, text=None) -> list[dict]:
        said = message(self.text if text is None else text, self.instruction, self.files)
        before = [{"role": "system", "content": self.system}] if self.system and not self.history else []
        return [*before, *self.history, {"role": "user", "content": said}]


def gather(call, engine: Engine, instruction: str, system: str, files: list[str], long: str, each=False) -> Question:
    """The question that the arguments, the named files and standard input make.

    each: standard input is left alone; its records become the texts of questions like this one."""
    limit = LONGEST if long == "truncate" else min(engine.context * BYTES_PER_TOKEN, LONGEST)
    text = ""
    if not (each or call.no_input) and pipes.is_fed(call.stdin):
        text = _read(call, engine, call.stdin, limit, "standard input")
    bodies = [(name, _file(call, engine, name, limit)) for name in files]
    if system.startswith("@"):
        system = _file(call, engine, system[1:], limit).rstrip("\n")
    question = Question(text, pipes.clean(instruction), bodies, pipes.clean(system))
    if not each and not question.messages()[-1]["content"]:
        raise UsageError("nothing to answer: no instruction and nothing on standard input", 'toast "..." < FILE')
    return question


def _file(call, engine, name, limit) -> str:
    try:
        fd = call.open(name)
    except OSError as error:
        raise os_error(error, f"open {name}") from None
    try:
        return _read(call, engine, fd, limit, name)
    finally:
        os.close(fd)


def _read(call, engine, fd, limit, what) -> str:
    text, whole, bad = pipes.read_text(fd, limit, what)
    if not whole:
        raise _too_long(engine, f"at least {len(engine.tokenizer.encode(text[: 1 << 20]))}")
    if bad:
        call.warn(f"{what} held {pipes.plural(bad, 'sequence')} of invalid UTF-8, read as U+FFFD")
    return text


def _too_long(engine, count) -> BadInput:
    return BadInput(f"the prompt is {count} tokens, {engine.name} reads {engine.context}", "--long truncate cuts it")


def rule(call, given: dict) -> tuple[str, str] | None:
    """(kind, text) of the one constraint that was given; --schema and --grammar may name a file."""
    asked = [(kind, text) for kind, text in given.items() if text is not None]
    if len(asked) > 1:
        raise UsageError(f"--{asked[0][0]} and --{asked[1][0]} exclude each other")
    if not asked:
        return None
    kind, text = asked[0]
    if not text:  # an unset variable of a script: not a wish for any answer
        raise UsageError(f"--{kind} is empty")
    inline = kind not in ("schema", "grammar") or (kind == "schema" and text.lstrip()[:1] in ("{", ""))
    return kind, text if inline else _contents(call, text)


def _contents(call, name) -> str:
    try:
        fd = call.open(name)
    except OSError as error:
        raise os_error(error, f"open {name}") from None
    try:
        return pipes.read_text(fd, LONGEST, name)[0]
    finally:
        os.close(fd)


def fit(call, engine: Engine, question: Question, long: str, template: bool, prefill: str):
    """(prompt, ids) that leave room for an answer; `truncate` cuts the middle of standard input."""
    prompt, ids = engine.prompt(question.messages(), template, prefill)
    most = engine.context * 3 // 4
    if len(ids) < engine.context:
        return prompt, ids
    if long == "error":
        raise _too_long(engine, len(ids))
    spans = engine.tokenizer.core.encode(question.text, add_special_tokens=False).offsets
    kept = len(spans) - (len(ids) - most)
    while kept >= 0:
        head, tail = kept // 2, kept - kept // 2
        text = question.text[: spans[head][0]] + question.text[spans[-tail][0] if tail else len(question.text) :]
        prompt, ids = engine.prompt(question.messages(text), template, prefill)
        if len(ids) <= most:
            call.cut(f"cut {len(spans) - kept} of {len(spans)} tokens from the middle of standard input")
            return prompt, ids
        kept -= len(ids) - most  # a cut may make its neighbours encode to more
    raise _too_long(engine, len(ids))
