"""Messages to the text that a model reads, by the chat template of its folder.

Owns the template's environment and how standard input, files and instruction become one message.
Does not know tokens. Source: transformers' utils/chat_template_utils.py, whose output is matched.
"""

from __future__ import annotations

import json
import os
from binascii import crc32

from toast import files
from toast.errors import BadInput, BadModel, told
from toast.pipes import clean
from toast.store.folder import blame, read_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Messages = list[dict[str, Any]]  # {"role", "content"}
    Variables = dict[str, Any]  # what a template may look at beside the messages
    Pieces = list[str | int]  # texts, and numbers of the messages whose contents stand between them

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

        cache: a folder for what a static template comes to, so that later processes do without jinja2 (70 ms to
        import). Raises BadModel for a broken template, BadInput when the template refuses the messages."""
        pieces = self._known(messages, cache, variables or {}) if cache else None
        if pieces is None:
            return self._render(messages, variables or {})
        return "".join(messages[p]["content"] if isinstance(p, int) else p for p in pieces)

    def _render(self, messages: Messages, variables: Variables | None = None) -> str:
        import jinja2

        from toast.generation.sandbox import Deadline, TooMuch

        usual = {"tools": None, "documents": None, "add_generation_prompt": True}
        try:
            env = environment(messages)
            if self.code is None:
                self.code = env.compile(self.source or "")
            template = env.template_class.from_code(env, self.code, env.make_globals(None))
            with Deadline():
                return clean(template.render(usual | self.tokens | (variables or {}) | {"messages": messages}))
        except jinja2.TemplateSyntaxError as error:
            raise BadModel(f"the model's chat template is broken in line {error.lineno}") from None
        except TooMuch as error:
            raise BadModel(f"the model's chat template {error}") from None
        except jinja2.TemplateError as error:
            raise BadInput(f"the model's chat template refuses this: {told(error)}") from None
        except Exception as error:  # a program of its own: whatever it raises is its fault
            raise BadModel(f"the model's chat template fails: {told(error)}") from None

    # ---- what a static template comes to: texts, and numbers of the messages between them

    def _known(self, messages: Messages, cache: str, variables: Variables) -> Pieces | None:
        """The pieces for messages of these roles; None when the template looks into the contents."""
        roles = " ".join(m["role"] for m in messages)
        if any(m.keys() != {"role", "content"} for m in messages):
            return None
        facts = [self.source, self.tokens, roles, *([variables] if variables else [])]
        key = crc32(json.dumps(facts).encode())
        path = os.path.join(cache, f"{key:08x}.json")
        try:
            found = json.loads(files.read(path))
            pieces = found["pieces"]
            if found["for"] == facts and found["sum"] == _sum(pieces) and _are_pieces(pieces, len(messages)):
                return pieces
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        return self._learn(messages, variables, facts=facts, path=path)

    def _learn(self, messages: Messages, variables: Variables, *, facts: list[Any], path: str) -> Pieces | None:
        import re

        from jinja2 import TemplateSyntaxError

        from toast.generation import static_template

        pieces: Pieces | None = None
        source = self.source or ""
        try:
            static = static_template.is_static(environment().parse(source)) and "\0" not in source
        except (TemplateSyntaxError, RecursionError):
            return None  # `_render` will tell
        if static:
            marks = [{"role": m["role"], "content": f"\0{i}\0"} for i, m in enumerate(messages)]
            marked = self._render(marks, variables)
            pieces = [int(p) if i % 2 else p for i, p in enumerate(re.split("\0(\\d+)\0", marked))]
        content = json.dumps({"for": facts, "sum": _sum(pieces), "pieces": pieces})
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            files.replace(path, [content.encode()])
        except OSError:  # a cache that cannot be written is no reason to fail
            pass
        return pieces


def _sum(pieces: Any) -> int:
    return crc32(json.dumps(pieces).encode())


def _are_pieces(pieces: Any, count: int) -> bool:
    """Whether they are texts and numbers of messages; None says that a template is not static."""
    if pieces is None:
        return True
    return isinstance(pieces, list) and all(isinstance(p, str) or (type(p) is int and 0 <= p < count) for p in pieces)


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


def environment(messages: Messages | tuple = ()) -> Any:
    """jinja2 as transformers sets it up: sandboxed, immutable, blocks trimmed, a few functions added; for one
    rendering of these messages, which bounds what it may make."""
    from jinja2 import TemplateError, ext, nodes

    from toast.generation.sandbox import Bounded

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

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:  # noqa: FBT001, FBT002  as templates call it
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    env = Bounded(messages, trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols])
    env.filters["tojson"] = env.bounded("tojson", tojson)
    env.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    return env
