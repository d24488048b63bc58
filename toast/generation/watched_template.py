"""What a chat template comes to for messages like these: texts, the places of contents, and what it asked of contents
on its way. Where the answers are the same, so is all else.

The template is run on marks in the place of contents. Their type answers for the contents and notes what was asked
("does it begin with ...?"). Where more is looked at than can be noted, the watch ends. Knows jinja2's syntax tree for
what Python would not ask the type for.
"""

from __future__ import annotations

import re
from functools import wraps

from jinja2 import nodes
from jinja2.runtime import Macro
from jinja2.utils import Namespace

from toast.generation.sandbox import PASSED, Bounded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Condition = tuple[int, str, list[str], bool]  # of which message, what is asked, with what, the answer
    Pieces = list[str | int]  # texts, and numbers of the messages whose contents stand between them

ASKED = {"startswith", "endswith"}  # of a content, and noted
STRIPS = {"strip", "lstrip", "rstrip"}  # noted where they change nothing
LOOKS = (
    "__len__", "__iter__", "__getitem__", "__contains__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__",
    "__hash__", "__bool__", "__mod__", "__rmod__", "__mul__", "__rmul__", "__format__", "__repr__",
)  # fmt: skip
KINDS = {"string", "defined", "undefined", "none", "mapping", "number", "integer", "float", "boolean", "true", "false",
         "eq", "equalto", "=="}  # fmt: skip  # tests that a content's type and its == answer
SHORT = {"trim", "default", "d", "string"}  # filters that do no more than its type tells
LISTS = {"length", "count", "first", "last", "list", "reverse", "selectattr", "rejectattr", "map", "items"}
CHANCE = {"random", "pprint"}


class Unwatched(BaseException):
    """The template looks at more than can be noted; once: with other contents it may not."""

    def __init__(self, *, once: bool = False) -> None:
        self.once = once


class Watch:
    """What was asked of contents, and whether something was that cannot be noted, whatever a template makes of that."""

    def __init__(self) -> None:
        self.conditions: list[Condition] = []
        self.failed: Unwatched | None = None

    def fail(self, *, once: bool = False) -> Any:
        self.failed = self.failed or Unwatched(once=once)
        raise self.failed

    def note(self, number: int, asked: str, given: tuple[Any, ...], *, answer: bool) -> bool:
        if not all(type(x) is str for x in given):
            self.fail()
        if (condition := (number, asked, list(given), answer)) not in self.conditions:
            self.conditions.append(condition)
        return answer


class Written(str):
    """Text with marks in it, which may be joined to others and written; whatever else is asked of it ends the watch."""

    _watch: Watch

    def __str__(self) -> str:
        return self

    def __add__(self, other: Any) -> Any:
        return written(str.__add__(self, other), self._watch) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: Any) -> Any:
        return written(str.__add__(other, self), self._watch) if isinstance(other, str) else NotImplemented


def _look(self: Written, *_: object) -> Any:
    self._watch.fail()


for _name in (*LOOKS, *STRIPS):
    setattr(Written, _name, _look)


def written(text: str, watch: Watch) -> Written:
    found = str.__new__(Written, text)
    found._watch = watch
    return found


class Content(Written):
    """A mark that answers for a message's content."""

    _number: int
    _real: str

    def __bool__(self) -> bool:
        return self._watch.note(self._number, "bool", (), answer=bool(self._real))

    def __contains__(self, other: object) -> bool:
        return self._watch.note(self._number, "contains", (other,), answer=str(other) in self._real)

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, str):
            return self is other
        return self._watch.note(self._number, "eq", (other,), answer=self._real == other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = Written.__hash__

    def startswith(self, *given: Any) -> bool:
        answer = bool(given) and self._real.startswith(given[0])
        return self._watch.note(self._number, "startswith", given[:1] if len(given) == 1 else (0,), answer=answer)

    def endswith(self, *given: Any) -> bool:
        answer = bool(given) and self._real.endswith(given[0])
        return self._watch.note(self._number, "endswith", given[:1] if len(given) == 1 else (0,), answer=answer)

    def strip(self, *given: Any) -> str:
        return self._stripped("strip", given)

    def lstrip(self, *given: Any) -> str:
        return self._stripped("lstrip", given)

    def rstrip(self, *given: Any) -> str:
        return self._stripped("rstrip", given)

    def _stripped(self, how: str, given: tuple[Any, ...]) -> str:
        given = () if given == (None,) else given
        if getattr(self._real, how)(*given) != self._real:
            self._watch.fail(once=True)
        self._watch.note(self._number, how, given, answer=True)
        return self


def _content(number: int, real: str, watch: Watch) -> Content:
    found = str.__new__(Content, f"\0{number}\0")
    found._number, found._real, found._watch = number, real, watch
    return found


class Watching(Bounded):
    """The sandbox under a watch."""

    def begin(self, watch: Watch) -> None:
        self.watch = watch
        self.filters = {name: self._filter(name, filter) for name, filter in self.filters.items()}
        tests: dict[str, Any] = dict(self.tests)
        self.tests = {name: self._test(name, test) for name, test in tests.items()}
        self.globals |= dict.fromkeys(("strftime_now", "lipsum"), lambda *_, **__: watch.fail())

    def _filter(self, name: str, filter: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(filter)
        def run(*values: Any, **named: Any) -> Any:
            given = [v for v in (*values, *named.values()) if not isinstance(v, PASSED)]
            if name in CHANCE or (name not in SHORT and any(isinstance(v, Written) for v in given)):
                self.watch.fail()
            if name not in SHORT | LISTS and any(map(_may_hold, given)):
                self.watch.fail()
            return filter(*values, **named)

        return run

    def _test(self, name: str, test: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(test)
        def run(*values: Any, **named: Any) -> Any:
            if name not in KINDS and any(isinstance(v, Written) for v in (*values, *named.values())):
                self.watch.fail()
            return test(*values, **named)

        return run

    def call(__self, __context: Any, __obj: Any, *values: Any, **named: Any) -> Any:  # noqa: N805  names of the base
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, Written) and not (isinstance(owner, Content) and name in ASKED | STRIPS):
            __self.watch.fail()
        passes = isinstance(__obj, Macro) or __obj is Namespace  # the template's own, which hand on
        if not passes and any(isinstance(v, Written) or _may_hold(v) for v in (*values, *named.values())):
            __self.watch.fail()
        return super().call(__context, __obj, *values, **named)

    def call_binop(self, context: Any, operator: str, *sides: Any) -> Any:
        if operator != "+" and any(isinstance(side, Written) or _may_hold(side) for side in sides):
            self.watch.fail()
        return super().call_binop(context, operator, *sides)

    def concat(self, parts: Iterable[str]) -> str:
        kept = list(parts)
        text = super().concat(kept)
        return written(text, self.watch) if any(isinstance(part, Written) for part in kept) else text


def _may_hold(value: Any) -> bool:
    """Whether there may be a mark inside of a value that is no text."""
    if isinstance(value, dict):
        return any(isinstance(v, Written) or _may_hold(v) for v in (*value, *value.values()))
    if isinstance(value, (list, tuple)):
        return any(isinstance(v, Written) or _may_hold(v) for v in value)
    return hasattr(value, "__next__")


def may_watch(tree: nodes.Template) -> bool:
    """Whether `in` is asked of what the template names itself, or of roles: a text on its left is looked at in C."""
    for compare in tree.find_all(nodes.Compare):
        lefts = [compare.expr, *(operand.expr for operand in compare.ops)]
        for left, operand in zip(lefts, compare.ops, strict=False):
            if operand.op in ("in", "notin") and not isinstance(left, nodes.Const) and _field(left) != "role":
                return False
    return True


def _field(node: nodes.Node) -> Any:
    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.arg.value if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) else None


def watched(
    messages: list[dict[str, Any]], render: Callable[[list[dict[str, Any]], Watch], str]
) -> tuple[list[Condition], Pieces]:
    """(what is asked of these messages' contents, the pieces); Unwatched. render: of messages, under a watch."""
    watch = Watch()
    marked = [{**m, "content": _content(i, m["content"], watch)} for i, m in enumerate(messages)]
    text = render(marked, watch)
    if watch.failed:
        raise watch.failed
    plain = str.__getitem__(text, slice(None)) if isinstance(text, Written) else text
    return watch.conditions, [int(p) if i % 2 else p for i, p in enumerate(re.split("\0(\\d+)\0", plain))]
