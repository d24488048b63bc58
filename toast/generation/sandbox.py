"""jinja2 for chat templates of strangers: a template is a program, and this bounds what it may take.

Owns what a rendering may make (characters, counted as they are made) and its time. A template is ended between two of
its lines, by a trace; what a single call could make too much of is weighed before the call.
"""

from __future__ import annotations

import re
import sys
from functools import wraps
from time import thread_time

from jinja2 import compiler, nodes, runtime
from jinja2.environment import Environment
from jinja2.filters import FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType
    from typing import Any

SECONDS = 2.0  # of the processor, for a rendering; a real one takes milliseconds
CHARACTERS = 16 << 20  # that a rendering may make, and COPIES of what it is given, for each 8 messages
COPIES = 64
BITS = 1 << 15  # of a whole number
EVENTS = 64  # of a trace, between two looks at the clock
PASSED = (Environment, runtime.Context, nodes.EvalContext)  # what jinja2 puts before a filter's own arguments
WIDE = {"batch", "center", "indent", "round", "slice", "tojson", "truncate", "urlize", "wordwrap"}  # take numbers
SLOW = {"pprint", "striptags", "title", "urlize", "wordcount", "wordwrap", "xmlattr"}  # more than copy a text


class TooMuch(Exception):
    """A template takes more than it may; the text says what."""


class Generator(compiler.CodeGenerator):
    """jinja2's, with what joins texts and makes containers under the environment's eyes."""

    def visit_Concat(self, node: nodes.Concat, frame: compiler.Frame) -> None:  # noqa: N802  the visitor's names
        self.write("environment.concat(map(str, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")))")

    def visit_List(self, node: nodes.List, frame: compiler.Frame) -> None:  # noqa: N802
        self._made(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: compiler.Frame) -> None:  # noqa: N802
        self._made(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: compiler.Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._made(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def _made(self, visit: Callable[[Any, compiler.Frame], None], node: nodes.Node, frame: compiler.Frame) -> None:
        self.write("environment.made(")
        visit(node, frame)
        self.write(")")


class Bounded(ImmutableSandboxedEnvironment):
    """The sandbox for one rendering of `given`, a list of messages."""

    code_generator_class = Generator
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, given: Any = (), **options: Any) -> None:
        super().__init__(**options)
        self.left = CHARACTERS + (1 + len(given) // 8) * COPIES * weigh(given, sys.maxsize)
        self.filters = {name: self.bounded(name, filter) for name, filter in FILTERS.items()}

    # ---- what is made

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise TooMuch("makes too much of these messages")

    def made(self, value: Any) -> Any:
        """The value, if there is room for it."""
        self.spend(weigh(value, self.left))
        return value

    def concat(self, parts: Iterable[str]) -> str:
        kept = []
        for part in parts:
            self.spend(str.__len__(part))
            kept.append(part)
        return "".join(kept)

    def call_binop(self, context: Any, operator: str, *sides: Any) -> Any:
        left, right = sides
        if operator == "%" and isinstance(left, str):
            self.spend(self._formatted(left, "%", right))
        elif operator == "+" and not isinstance(left, (int, float)):
            self.spend(self._weight(left) + self._weight(right))
        elif operator in ("*", "**"):
            self._multiplied(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def _multiplied(self, operator: str, left: Any, right: Any) -> None:
        if isinstance(left, int) and isinstance(right, int):
            a, b = left.bit_length(), right.bit_length()
            if (a * right if operator == "**" else a + b) > BITS:
                raise TooMuch("makes too large a number")
            return
        for many, count in ((left, right), (right, left)):
            if isinstance(count, int):
                self.spend(self._weight(many) * max(count, 0))

    def _weight(self, value: Any) -> int:
        return weigh(value, self.left)

    def _formatted(self, form: str, mark: str, values: Any) -> int:
        """What formatting may make: every mark any value, and blanks to the widths that it names."""
        widths = sum(map(int, re.findall(r"\d+", form)))
        if "*" in form or re.search(r"\{[^{}]*\{", form):  # widths that are values
            widths += numbers(values)
        return len(form) + form.count(mark) * (self._weight(values) + widths)

    # ---- what is called

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapper = super().wrap_str_format(value)
        if wrapper is None:
            return None

        def bounded(*values: Any, **named: Any) -> str:
            self.spend(self._formatted(value.__self__, "{", [list(values), named]))
            return wrapper(*values, **named)

        return bounded

    def call(__self, __context: Any, __obj: Any, *values: Any, **named: Any) -> Any:  # noqa: N805  names of the base
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, (str, bytes, int)):
            if name == "join":
                values = (list(values[0]), *values[1:])
            __self.spend(__self._method(owner, name, [*values, *named.values()]))
        found = super().call(__context, __obj, *values, **named)
        return __self.made(found) if isinstance(found, (str, bytes, list, tuple, dict)) else found

    def _method(self, owner: Any, name: str, values: list[Any]) -> int:
        """What a method of a text or a number may make."""
        size = self._weight(owner)
        if name == "replace" and len(values) > 1:
            return size + owner.count(values[0]) * self._weight(values[1])
        if name == "join":
            return self._weight(values) + size * len(values[0])
        if name in ("expandtabs", "translate"):
            return size * (1 + numbers(values) + self._weight(values))
        return size + numbers(values)

    def bounded(self, name: str, filter: Callable[..., Any]) -> Callable[..., Any]:
        """A filter whose cost is known before, and whose result is counted."""

        @wraps(filter)
        def run(*values: Any, **named: Any) -> Any:
            first = 1 if values and isinstance(values[0], PASSED) else 0
            if name in ("join", "list", "sort", "string") and len(values) > first:
                value = values[first]
                if not isinstance(value, (str, list, tuple, dict, int, float)) and hasattr(value, "__next__"):
                    values = (*values[:first], list(value), *values[first + 1 :])
            self.spend(self._filtering(name, list(values[first:]), named))
            found = filter(*values, **named)
            return self.made(found) if isinstance(found, (str, list, tuple, dict)) else found

        return run

    def _filtering(self, name: str, values: list[Any], named: dict[str, Any]) -> int:
        """What a filter may make of its value."""
        value, given = values[0] if values else "", [*values[1:], *named.values()]
        if name == "replace" and len(given) > 1:
            text, old = str(value), str(given[0])
            return len(text) + text.count(old) * self._weight(given[1])
        if name == "join" and isinstance(value, (list, tuple)):
            return self._weight(value) + len(value) * self._weight(given)
        if name == "format":
            return self._formatted(str(value), "%", given)
        if name == "sum" and not all(isinstance(start, (int, float, str)) for start in given):
            raise TooMuch("sums up what are no numbers")
        cost = self._weight(value) * (COPIES if name in SLOW else 1) if name in WIDE | SLOW else 0
        if name in WIDE:
            lines = value.count("\n") + 1 if isinstance(value, str) else self._weight(value)
            cost += numbers(given) * (lines if name in ("indent", "tojson") else 1)
        return cost


def weigh(value: Any, most: int) -> int:
    """The size of a value with all that is in it, each as often as it is there; TooMuch over `most`."""
    total, todo = 0, [value]
    while todo:
        one = todo.pop()
        inner: Any = ()
        if isinstance(one, str):
            total += str.__len__(one)  # of a mark under a watch, too
        elif isinstance(one, bytes):
            total += len(one)
        elif isinstance(one, int):
            total += 1 + one.bit_length() // 8
        elif isinstance(one, dict):
            inner = [*one, *one.values()] if total + len(one) <= most else ()
            total += 8 * len(one)
        elif isinstance(one, (list, tuple, set)):
            inner, total = one, total + 8 * len(one)
        else:
            total += 1
        if total > most:
            raise TooMuch("makes too much of these messages")
        todo.extend(inner)
    return total


def numbers(values: Any) -> int:
    """The sum of the whole numbers among values: how wide they may ask something to be."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, (list, tuple)):
        return sum(map(numbers, values))
    return abs(values) if isinstance(values, int) else 0


class Deadline:
    """A context that ends templates, and the functions that they call, after SECONDS, by TooMuch."""

    def __enter__(self) -> None:
        self.before, self.until, self.events = sys.gettrace(), thread_time() + SECONDS, 0
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        self.events += 1
        if self.events % EVENTS == 0 and thread_time() > self.until:
            raise TooMuch(f"takes more than {SECONDS:.0f} seconds")
        return self._trace if frame.f_code.co_filename == "<template>" else None
