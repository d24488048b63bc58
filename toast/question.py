"""What is asked: standard input, named files, an instruction and a system prompt become messages.

Owns what is read, and what is cut when it does not fit. Does not know how an answer is made.
"""

from __future__ import annotations

import os
import stat
from codecs import utf_8_decode

from toast import pipes
from toast.errors import BadInput, UsageError, os_error
from toast.generation.chat_template import message
from toast.generation.engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import FileIO
    from typing import Any

    from toast.command import Call

    Messages = list[dict[str, Any]]  # {"role", "content"}

BYTES_PER_TOKEN = 128  # no vocabulary has longer tokens: input over this times the context cannot fit
LONGEST = 64 << 20  # bytes of input that are cut rather than refused
SNIFFED = 8192  # bytes that tell text from anything else
RULES = 1 << 20  # bytes of a schema or a grammar
CUT = "--long truncate cuts {}"
TEXT = "@FILE; a text that begins with @ has a blank before it"
EMPTY = "standard input is empty: the instruction alone is answered (--no-input says so)"
INPUT = "{{input}}"  # in an instruction from a file: where standard input goes
BREAKS = "\r\n"  # that end a text and are none of it
WINDOW = 16  # characters for each token of the context, over which only the ends of a text are looked at


class Question:
    """Messages for the model, of which `text`, the standard input, may be cut to fit.

    placed: the instruction says itself where the text goes. raw: standard input as it came."""

    def __init__(
        self, text: str = "", instruction: str = "", *,
        files: Iterable[tuple[str, str]] = (), system: str = "", history: Iterable[dict[str, Any]] = (),
        placed: bool = False, raw: bytes = b"",
    ) -> None:  # fmt: skip
        self.text, self.instruction, self.files = text, instruction, list(files)
        self.system, self.history, self.placed, self.raw = system, list(history), placed, raw

    def about(self, text: str) -> Question:
        """The same question about another text."""
        return Question(
            text, self.instruction, files=self.files, system=self.system, history=self.history, placed=self.placed
        )

    def messages(self, text: str | None = None) -> Messages:
        text = self.text if text is None else text
        if self.placed:
            said = message("", self.instruction.replace(INPUT, text.rstrip(BREAKS)), self.files)
        else:
            said = message(text, self.instruction, self.files)
        before = [{"role": "system", "content": self.system}] if self.system and not self.history else []
        return [*before, *self.history, {"role": "user", "content": said}]


def gather(
    call: Call, engine: Engine, instruction: str, *, system: str, files: list[str], long: str, each: bool = False
) -> Question:
    """The question that the arguments, the named files and standard input make.

    each: standard input is left alone; its records become the texts of questions like this one."""
    limit = LONGEST if long == "truncate" else min(engine.context * BYTES_PER_TOKEN, LONGEST)
    raw = b""
    if not (each or call.no_input) and pipes.is_fed(call.stdin):
        raw = _read(call, engine, call.stdin, limit=limit, what="standard input")
        if not (raw or files) and instruction:
            call.warn(EMPTY)
    bodies = [(pipes.clean(name), _file(call, engine, name, limit=limit)) for name in files]
    _warn_of_file(call, instruction)
    said = _said(call, engine, instruction, limit=limit)
    question = Question(
        _text(call, raw, "standard input"), said, files=bodies, system=_said(call, engine, system, limit=limit),
        placed=instruction.startswith("@") and INPUT in said, raw=raw,
    )  # fmt: skip
    if not each and not question.messages()[-1]["content"].strip():
        raise UsageError("nothing to answer: no instruction and nothing on standard input", 'toast "..." < FILE')
    return question


def check_operands(call: Call, instruction: str, names: list[str], *, alone: bool = False) -> None:
    """UsageError for an operand that is no file, most likely a word of an instruction without quotes; and for one word
    that is a command elsewhere. alone: there is nothing else that it could be about."""
    if alone and instruction.isalpha() and (call.no_input or not pipes.is_fed(call.stdin)):
        from toast import spellings

        if told := spellings.verb(instruction):
            raise UsageError(f"toast has no command {instruction!r}", told)
    for name in names:
        try:
            os.stat(name, dir_fd=call.cwd)
        except OSError:
            from toast import operands

            hint = operands.unquoted(call, instruction, names)
            raise UsageError(f"no file {operands.short(name)!r}", hint) from None


def _warn_of_file(call: Call, instruction: str) -> None:
    """Tell of an instruction that was most likely meant as a file to read."""
    if not any(c in instruction for c in "./") or len(instruction.split()) != 1:
        return
    try:
        found = stat.S_ISREG(os.stat(instruction, dir_fd=call.cwd).st_mode)
    except (OSError, ValueError):
        return
    if found:
        name = pipes.clean(instruction)
        call.warn(f'{name} is the instruction, not a file to read ({call.name} "..." {name})')


def _said(call: Call, engine: Engine, word: str, *, limit: int) -> str:
    """The text of an argument, or of the file that @FILE names."""
    if not word.startswith("@"):
        return pipes.clean(word)
    name = word[1:]
    if not name:
        raise UsageError("@ names no file", TEXT)
    try:
        return _file(call, engine, name, limit=limit).strip(BREAKS)
    except BadInput as error:
        raise error if error.hint else BadInput(error.message, TEXT) from None


def _file(call: Call, engine: Engine, name: str, *, limit: int) -> str:
    with _opened(call, name) as file:
        return _text(call, _read(call, engine, file.fileno(), limit=limit, what=name), name)


def _opened(call: Call, name: str) -> FileIO:
    if name == "-":
        raise UsageError("- names no file here", "standard input is read without being named")
    try:
        return open(pipes.open_again(call, name), "rb", buffering=0)
    except OSError as error:
        raise os_error(error, f"open {name}") from None


def _read(call: Call, engine: Engine, fd: int, *, limit: int, what: str) -> bytes:
    data, whole = pipes.read_up_to(fd, limit, what)
    if _is_binary(data[:SNIFFED]):
        raise BadInput(f"{what} is no text", "strings, pdftotext, pandoc or iconv take the text out of it")
    if not whole:
        text, _ = pipes.decoded(data[: 1 << 20])
        hint = CUT.format(what) if fd == call.stdin and limit < LONGEST else f"tokenize --max N < {what} shortens it"
        raise _too_long(engine, f"at least {len(engine.tokenizer.encode(text))}", hint)
    return data


def _is_binary(head: bytes) -> bool:
    """Whether a file begins as no text does: as a PDF, or with NUL and bytes that are no UTF-8."""
    if b"\0" not in head:
        return head.startswith(b"%PDF-")
    try:
        utf_8_decode(head)  # which leaves a character at the end alone that is cut
    except UnicodeDecodeError:
        return True
    return False


def _text(call: Call, data: bytes, what: str) -> str:
    text, bad = pipes.decoded(data)
    if bad:
        call.warn(f"{what} held {pipes.plural(bad, 'sequence')} of invalid UTF-8, read as U+FFFD")
    return text


def _too_long(engine: Engine, count: int | str, hint: str) -> BadInput:
    return BadInput(f"the prompt is {count} tokens, {engine.name} reads {engine.context}", hint)


def rule(call: Call, given: dict[str, str | None]) -> tuple[str, str] | None:
    """(kind, text) of the one constraint that was given; --schema and --grammar may name a FILE or @FILE, --choice
    @FILE."""
    asked = [(kind, text) for kind, text in given.items() if text is not None]
    if len(asked) > 1:
        raise UsageError(f"--{asked[0][0]} and --{asked[1][0]} exclude each other")
    if not asked:
        return None
    kind, text = asked[0]
    if not text:  # an unset variable of a script: not a wish for any answer
        raise UsageError(f"--{kind} is empty")
    if kind == "choice":
        return kind, _contents(call, kind, text[1:]) + "\n" if text[:1] == "@" else pipes.clean(text).strip()
    inline = kind == "regex" or (kind == "schema" and text.lstrip()[:1] in ("{", ""))
    return kind, pipes.clean(text) if inline else _contents(call, kind, text.removeprefix("@"))


def _contents(call: Call, kind: str, name: str) -> str:
    with _opened(call, name) as file:
        data, whole = pipes.read_up_to(file.fileno(), RULES, name)
    if not whole:
        raise BadInput(f"{name} is longer than the {RULES} bytes that a {kind} may have")
    return pipes.decoded(data)[0]


def fit(
    call: Call, engine: Engine, question: Question, *,
    long: str, template: bool, prefill: str, what: str = "standard input",
) -> tuple[str, list[int]]:  # fmt: skip
    """(prompt, ids) that leave room for an answer; `truncate` cuts the middle of the text, told of as `what`."""

    def prompt(text: str) -> tuple[str, list[int]]:
        return engine.prompt(question.messages(text), template=template, prefill=prefill)

    text, most = question.text, engine.context * 3 // 4
    huge = long == "truncate" and len(text) > engine.context * WINDOW
    whole, ids = prompt("" if huge else text)
    if len(ids) < engine.context and not huge:
        return whole, ids
    if long == "error":
        raise _too_long(engine, len(ids), _shorter(question, long, what))
    spans = _ends(engine, text) if huge else engine.tokenizer.spans(text)
    kept = min(most - len(ids), len(spans) - 1) if huge else len(spans) - (len(ids) - most)
    while kept >= 0:
        head, tail = kept // 2, kept - kept // 2
        left = text[: spans[head][0]] + text[spans[-tail][0] if tail else len(text) :]
        found, ids = prompt(left)
        if len(ids) <= most:
            cut = f"{len(text) - len(left)} of {len(text)} characters"
            call.cut(f"cut {cut if huge else f'{len(spans) - kept} of {len(spans)} tokens'} from the middle of {what}")
            return found, ids
        kept -= len(ids) - most  # a cut may make its neighbours encode to more
    raise _too_long(engine, len(ids), _shorter(question, long, what))


def _ends(engine: Engine, text: str) -> list[tuple[int, int]]:
    """Where the tokens are at both ends of a text that is far too long, as many at each."""
    size = engine.context * WINDOW // 2
    head, tail = (engine.tokenizer.spans(part) for part in (text[:size], text[-size:]))
    count, before = min(len(head), len(tail)), len(text) - size
    return head[:count] + [(before + a, before + b) for a, b in tail[len(tail) - count :]]


def _shorter(question: Question, long: str, what: str) -> str:
    """What to type to have a shorter prompt."""
    if question.text and long == "error":
        return CUT.format(what)
    return "--session NAME --forget begins anew" if question.history else "shorten the instruction or the files"
