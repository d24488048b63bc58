"""Messages to the text that a model reads, by the chat template of its folder.

Owns the template's environment and how standard input, files and instruction become one message.
Does not know tokens. Source: transformers' utils/chat_template_utils.py, whose output is matched.
"""

from __future__ import annotations

import os
from binascii import crc32

from toast import files, json_text
from toast.errors import BadInput, BadModel, told
from toast.pipes import clean
from toast.store.folder import blame, read_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Messages = list[dict[str, Any]]  # {"role", "content"}
    Variables = dict[str, Any]  # what a template may look at beside the messages
    from toast.generation.watched_template import Condition, Pieces, Watch

    Cases = list[tuple[list[Condition], Pieces]]  # what was asked of contents, and what it came to

CASES = 32  # of a template and roles that are kept
LONGEST = 1 << 20  # characters of a template; those of today have 20,000
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def message(text: str, instruction: str, documents: Iterable[tuple[str, str]] = ()) -> str:
    """Standard input, then the files under their names, a blank line, then the instruction."""
    named = [f"==> {name} <==\n{body}" for name, body in documents]
    parts = [*(part.rstrip("\r\n") for part in [text, *named]), instruction]
    return "\n\n".join(part for part in parts if part.strip())


class Template:
    """The chat template of a model folder; `source` is None when the model has none. Immutable."""

    def __init__(self, folder: str) -> None:
        self.code: Any = None  # of the template, once it was rendered: it is the same for all messages
        config = read_object(folder, "tokenizer_config.json")
        with blame(folder):
            self.source = _source(folder, config)
            values = {name: config.get(name) for name in SPECIAL}
            self.tokens = {n: v["content"] if isinstance(v, dict) else v for n, v in values.items() if v}
        if not all(isinstance(token, str) for token in self.tokens.values()):
            raise BadModel(f"{folder}: one of its special tokens is no text")
        if not isinstance(self.source, str | None):
            raise BadModel(f"{folder}: its chat template is no text")
        if len(self.source or "") > LONGEST:
            raise BadModel(f"{folder}: its chat template is longer than {LONGEST} characters")

    def render(self, messages: Messages, cache: str | None = None, variables: Variables | None = None) -> str:
        """The prompt of messages {"role", "content"}, ready for the assistant's turn.

        cache: a folder for what the template came to before, so that later processes do without jinja2 (70 ms to
        import). Raises BadModel for a broken template, BadInput when the template refuses the messages."""
        if cache is None or any(m.keys() != {"role", "content"} for m in messages):
            return self._render(messages, variables)
        facts = [self.source, self.tokens, [m["role"] for m in messages], *([variables] if variables else [])]
        path = os.path.join(cache, f"{crc32(repr(facts).encode()):08x}.json")
        cases = _read(path, facts, len(messages))
        for conditions, pieces in cases or ():
            if all(_holds(messages, condition) for condition in conditions):
                return _joined(pieces, messages)
        text = self._render(messages, variables)
        if cases is not None:
            self._learn(messages, variables or {}, text=text, cases=cases, facts=facts, path=path)
        return text

    def _render(self, messages: Messages, variables: Variables | None = None, watch: Watch | None = None) -> str:
        import jinja2

        from toast.generation.sandbox import Deadline, TooMuch

        usual = {"tools": None, "documents": None, "add_generation_prompt": True}
        try:
            env = environment(messages, watch)
            if self.code is None:
                self.code = env.compile(self.source or "")
            template = env.template_class.from_code(env, self.code, env.make_globals(None))
            with Deadline():
                text = template.render(usual | self.tokens | (variables or {}) | {"messages": messages})
                return text if watch else clean(text)
        except jinja2.TemplateSyntaxError as error:
            raise BadModel(f"the model's chat template is broken in line {error.lineno}") from None
        except TooMuch as error:
            raise BadModel(f"the model's chat template {error}") from None
        except jinja2.TemplateError as error:
            raise BadInput(f"the model's chat template refuses this: {told(error)}") from None
        except Exception as error:  # a program of its own: whatever it raises is its fault
            raise BadModel(f"the model's chat template fails: {told(error)}") from None

    def _learn(
        self, messages: Messages, variables: Variables, *, text: str, cases: Cases, facts: list[Any], path: str
    ) -> None:
        """Keep what the template came to for these messages; that nothing can be kept, where it cannot."""
        import json

        from toast.generation import watched_template

        known: Cases | None = None
        try:
            if "\0" not in (self.source or "") and watched_template.may_watch(environment().parse(self.source or "")):
                found = watched_template.watched(messages, lambda marked, watch: self._render(marked, variables, watch))
                if _joined(found[1], messages) != text:
                    return
                known = [found, *cases][:CASES]
        except watched_template.Unwatched as ended:
            if ended.once:
                return
        except (BadModel, BadInput):
            return
        content = json.dumps({"for": facts, "sum": _sum(json.loads(json.dumps(known))), "cases": known})
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            files.replace(path, [content.encode()])
        except OSError:  # a cache that cannot be written is no reason to fail
            pass


def _read(path: str, facts: list[Any], count: int) -> Cases | None:
    """What is kept for these facts; None where it is known that nothing can be."""
    try:
        found = json_text.loads(files.read(path))
        cases = found["cases"]
        if found["for"] == facts and found["sum"] == _sum(cases) and (cases is None or _are_cases(cases, count)):
            return cases
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return []


def _sum(cases: Any) -> int:
    return crc32(repr(cases).encode())


def _are_cases(cases: Any, count: int) -> bool:
    """Whether they are conditions and pieces for so many messages."""

    def is_number(x: Any) -> bool:
        return type(x) is int and 0 <= x < count

    return all(
        all(isinstance(p, str) or is_number(p) for p in pieces)
        and all(is_number(i) and len(given) in ASKED_WITH[how] for i, how, given, _ in asked)
        and all(isinstance(x, str) for _, _, given, _ in asked for x in given)
        for asked, pieces in cases
    )


def _holds(messages: Messages, condition: Condition) -> bool:
    """Whether what a template asked of a content has the same answer."""
    number, how, given, answer = condition
    return ASKS[how](messages[number]["content"], *given) is answer


ASKS: dict[str, Callable[..., bool]] = {
    "bool": bool, "eq": lambda content, x: content == x, "contains": lambda content, x: x in content,
    "startswith": lambda content, x: content.startswith(x), "endswith": lambda content, x: content.endswith(x),
    "strip": lambda content, *x: content.strip(*x) == content,
    "lstrip": lambda content, *x: content.lstrip(*x) == content,
    "rstrip": lambda content, *x: content.rstrip(*x) == content,
}  # fmt: skip


ASKED_WITH = {"bool": {0}, "strip": {0, 1}, "lstrip": {0, 1}, "rstrip": {0, 1}, "eq": {1}, "contains": {1},
              "startswith": {1}, "endswith": {1}}  # fmt: skip  # how many texts


def _joined(pieces: Pieces, messages: Messages) -> str:
    return clean("".join(messages[p]["content"] if isinstance(p, int) else p for p in pieces))


def _source(folder: str, config: dict[str, Any]) -> Any:
    file = os.path.join(folder, "chat_template.jinja")
    try:
        with open(files.open_regular(file), encoding="utf-8") as opened:
            return opened.read()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise BadModel(f"{file}: {error}") from None
    found = config.get("chat_template") or read_object(folder, "chat_template.json").get("chat_template")
    if isinstance(found, list):  # named templates
        named = {t["name"]: t["template"] for t in found}
        found = named.get("default") or next(iter(named.values()), None)
    return found


def environment(messages: Messages | tuple = (), watch: Watch | None = None) -> Any:
    """jinja2 as transformers sets it up: sandboxed, immutable, blocks trimmed, a few functions added; for one
    rendering of these messages, which bounds what it may make. watch: notes what is asked of them."""
    from jinja2 import TemplateError, ext, nodes

    from toast.generation.sandbox import Bounded
    from toast.generation.watched_template import Watching

    class Generation(ext.Extension):
        """{% generation %}...{% endgeneration %} marks the assistant's words; here it is their text."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def raise_exception(text: str) -> None:
        raise TemplateError(text)

    def strftime_now(form: str) -> str:
        from datetime import datetime

        return datetime.now().strftime(form)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:  # noqa: FBT001, FBT002  templates' way
        import json

        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    env: Any = (Watching if watch else Bounded)(
        messages, trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    env.filters["tojson"] = env.bounded("tojson", tojson)
    env.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    if watch:
        env.begin(watch)
    return env
