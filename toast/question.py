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
LEFT = "standard input, of which a part was read before, is left to a loop (--no-input says so; cat | toast reads it)"
LISTED = "standard input is names of files that are here, and is read beside the FILEs (in a loop: --no-input)"
LISTING = 8  # lines of it that are looked at for that
INPUT = "{{input}}"  # in an instruction from a file: where standard input goes
BREAKS = "\r\n"  # that end a text and are none of it
WINDOW = 16  # characters for each token of the context, over which only the ends of a text are looked at


class Question:
    """Messages for the model, of which the texts, standard input and the bodies of files, may be cut to fit.

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
        return self.of([text, *self.texts[1:]])

    @property
    def texts(self) -> list[str]:
        """Standard input, then the bodies of the files."""
        return [self.text, *(body for _, body in self.files)]

    def of(self, texts: list[str]) -> Question:
        """The same question about these, in the place of its texts."""
        text, *bodies = texts
        return Question(
            text, self.instruction, files=[(name, body) for (name, _), body in zip(self.files, bodies, strict=True)],
            system=self.system, history=self.history, placed=self.placed, raw=self.raw,
        )  # fmt: skip

    def messages(self) -> Messages:
        if self.placed:
            said = message("", self.instruction.replace(INPUT, self.text.rstrip(BREAKS)), self.files)
        else:
            said = message(self.text, self.instruction, self.files)
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
        raw = _standard_input(call, engine, instruction, files=files, limit=limit)
    bodies = [(pipes.clean(name), _file(call, engine, name, limit=limit, cut=True)) for name in files]
    _warn_of_file(call, instruction)
    said = _said(call, engine, instruction, limit=limit)
    question = Question(
        _text(call, raw, "standard input"), said, files=bodies, system=_said(call, engine, system, limit=limit),
        placed=instruction.startswith("@") and INPUT in said, raw=raw,
    )  # fmt: skip
    if not each and not question.messages()[-1]["content"].strip():
        raise UsageError("nothing to answer: no instruction and nothing on standard input", 'toast "..." < FILE')
    return question


def _standard_input(call: Call, engine: Engine, instruction: str, *, files: list[str], limit: int) -> bytes:
    """All of it, unless it is most likely what a loop around this command reads: then it is left, or told."""
    if pipes.is_begun(call.stdin):
        if files and call.strict:
            raise BadInput("of standard input a part was read before", "cat | toast reads the rest, --no-input none")
        call.warn(LEFT if files else pipes.BEGUN.format(""))
        if files:
            return b""
    raw = _read(call, engine, call.stdin, limit=limit, what="standard input", cut=True)
    if files and _lists_files(call, raw):
        call.warn(LISTED)
    if not (raw.strip() or files) and instruction:
        if call.strict:
            raise BadInput("standard input is empty: an answer would be about nothing", "--no-input leaves it out")
        call.warn(EMPTY)
    return raw


def _lists_files(call: Call, raw: bytes) -> bool:
    """Whether each of the first lines is the name of a file that is here."""
    lines = raw[: 64 << 10].splitlines()[:LISTING]
    return bool(lines) and all(_is_file(call, os.fsdecode(line)) for line in lines)


def _is_file(call: Call, name: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=call.cwd).st_mode)
    except (OSError, ValueError):
        return False


def check_operands(
    call: Call, instruction: str, names: list[str], *, alone: bool = False, each: bool = False
) -> None:  # fmt: skip
    """UsageError for an operand that is no file, most likely a word of an instruction without quotes; and for one word
    that is a command elsewhere, or a file. alone: there is nothing else that it could be about. each: operands are
    records, and - is standard input."""
    if alone and (call.no_input or not pipes.is_fed(call.stdin)):
        if instruction.isalpha():
            from toast import spellings

            if told := spellings.verb(instruction):
                raise UsageError(f"toast has no command {instruction!r}", told)
        if _is_meant_as_file(call, instruction):
            name = pipes.clean(instruction)
            raise UsageError(f"nothing says what to do with {name}", f'toast {"--each " * each}"summarise" {name}')
    for name in names:
        if name == "-" and each:
            continue
        _check_dash(name)
        try:
            os.stat(name, dir_fd=call.cwd)
        except OSError:
            from toast import operands

            hint = operands.unquoted(call, instruction, names)
            raise UsageError(f"no file {operands.short(name)!r}", hint) from None


def _is_meant_as_file(call: Call, instruction: str) -> bool:
    """Whether an instruction is one word that looks like the name of a file, and there is one."""
    named = any(c in instruction for c in "./") and len(instruction.split()) == 1
    return named and _is_file(call, instruction)


def _warn_of_file(call: Call, instruction: str) -> None:
    """Tell of an instruction that was most likely meant as a file to read."""
    if _is_meant_as_file(call, instruction):
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


def _file(call: Call, engine: Engine, name: str, *, limit: int, cut: bool = False) -> str:
    with _opened(call, name) as file:
        return _text(call, _read(call, engine, file.fileno(), limit=limit, what=name, cut=cut), name)


def _check_dash(name: str) -> None:
    if name == "-":
        raise UsageError("- names no file here", "standard input is read without being named")


def _opened(call: Call, name: str) -> FileIO:
    _check_dash(name)
    try:
        return open(pipes.open_again(call, name), "rb", buffering=0)
    except OSError as error:
        raise os_error(error, f"open {name}") from None


def _read(call: Call, engine: Engine, fd: int, *, limit: int, what: str, cut: bool) -> bytes:
    """cut: whether --long truncate would."""
    data, whole = pipes.read_up_to(fd, limit, what)
    if _is_binary(data[:SNIFFED]):
        raise BadInput(f"{what} is no text", "strings, pdftotext, pandoc or iconv take the text out of it")
    if not whole:
        text, _ = pipes.decoded(data[: 1 << 20])
        hint = CUT.format(what) if cut and limit < LONGEST else f"tokenize --max N < {what} shortens it"
        raise engine.too_long(f"at least {len(engine.tokenizer.encode(text))}", hint)
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
    if kind == "choice" and text[:1] == "@":
        return kind, _contents(call, kind, text[1:]) + "\n"
    if kind == "choice":
        _expect_choices(call, text)
        return kind, pipes.clean(text).strip()
    inline = kind == "regex" or (kind == "schema" and text.lstrip()[:1] in ("{", ""))
    return kind, pipes.clean(text) if inline else _contents(call, kind, text.removeprefix("@"))


def _expect_choices(call: Call, text: str) -> None:
    """One choice that is the name of a file is meant as its lines."""
    if "," not in text and os.path.isfile(call.path(text)):
        raise UsageError(f"--choice {text}: one choice, and the name of a file", f"its lines: --choice @{text}")


def _contents(call: Call, kind: str, name: str) -> str:
    with _opened(call, name) as file:
        data, whole = pipes.read_up_to(file.fileno(), RULES, name)
    if not whole:
        raise BadInput(f"{name} is longer than the {RULES} bytes that a {kind} may have")
    return pipes.decoded(data)[0]


def fit(
    call: Call, engine: Engine, question: Question, *,
    long: str, template: bool, prefill: str, what: str = "standard input",
) -> tuple[Question, str, list[int]]:  # fmt: skip
    """(question, prompt, ids) that leave room for an answer; `truncate` cuts the middle of the longest texts. what: the
    name of the first one."""

    def prompt(texts: list[str]) -> tuple[str, list[int]]:
        return engine.prompt(question.of(texts).messages(), template=template, prefill=prefill)

    names, texts = [what, *(name for name, _ in question.files)], question.texts
    longest = max(texts, key=len)
    if long == "error" or len(longest) <= engine.context * WINDOW:
        whole, ids = prompt(texts)
        if len(ids) < engine.context:
            return question, whole, ids
    shorter = "--session NAME --forget begins anew" if question.history else "shorten the instruction"
    if long == "error":
        raise engine.too_long(len(ids), CUT.format(names[texts.index(longest)]) if longest else shorter)
    from toast import cutting

    parts = [cutting.Part(engine, name, text, window=WINDOW) for name, text in zip(names, texts, strict=True)]
    found, ids, texts = cutting.fit(call, engine, parts, prompt=prompt, hint=shorter)
    return question.of(texts), found, ids
