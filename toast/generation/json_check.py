"""JSON that is finished, or as far as it has come: no name twice in an object, and valid by its schema.

Knows JSON and its schemas alone; no tokens, no engine.
"""

from __future__ import annotations

import json

from toast.errors import UsageError
from toast.generation.closing import Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


FINAL = {"uniqueItems", "propertyNames"}  # keywords of which a fault stays one, whatever follows
TWICE = "a name comes twice in an object"


class Check:
    """The rest of a schema, which the engine does not enforce; jsonschema is imported for it alone."""

    def __init__(self, schema: Any) -> None:
        import jsonschema
        from jsonschema_specifications import REGISTRY

        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        try:
            kind.check_schema(schema)
        except (jsonschema.SchemaError, RecursionError) as error:
            raise UsageError(f"--schema is no JSON schema: {getattr(error, 'message', error)}") from None
        self.validator = kind(schema, registry=REGISTRY)  # one of its own fetches what a $ref names

    def __call__(self, value: Any) -> str:
        """What is wrong with a value; "" for a valid one."""
        try:
            found = next(self.validator.iter_errors(value), None)
        except Exception as error:  # a $ref to nowhere, a pattern that Python does not read
            return f"it cannot be checked: {error}"
        return found.message if found else ""

    def dooms(self, value: Any) -> bool:
        """Whether a value that lacks its end, after a comma, has a fault that no end mends."""
        try:
            return any(not FINAL.isdisjoint(error.schema_path) for error in self.validator.iter_errors(value))
        except Exception:
            return False


def fault(text: bytes, check: Check | None) -> str:
    """What is wrong with a finished JSON text; "" for a right one."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError(TWICE)
        return found

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        return str(error)
    return check(value) if check else ""


class Names:
    """The names in the objects that are open in a JSON text, as its bytes come."""

    __slots__ = ("escaped", "expected", "is_name", "open", "string")

    def __init__(self) -> None:
        self.open: list[frozenset[str] | None] = []  # None: an array
        self.string: bytes | None = None  # the one that is open, as it is written
        self.is_name = self.expected = self.escaped = False

    def copy(self) -> Names:
        other = Names()
        other.open, other.string, other.is_name = self.open.copy(), self.string, self.is_name
        other.expected, other.escaped = self.expected, self.escaped
        return other

    def add(self, text: bytes) -> bool:
        """Whether no name came twice in an object by these bytes."""
        return all(self._string(byte) if self.string is not None else self._other(byte) for byte in text)

    def _string(self, byte: int) -> bool:
        assert self.string is not None
        if byte != 0x22 or self.escaped:
            self.escaped = byte == 0x5C and not self.escaped
            self.string += bytes([byte])
            return True
        written, self.string = self.string, None
        known = self.open[-1] if self.open and self.is_name else None
        if known is None:
            return True
        try:
            name = json.loads(b'"' + written + b'"')
        except ValueError:
            return False
        self.open[-1] = known | {name}
        return name not in known

    def _other(self, byte: int) -> bool:
        if byte == 0x22:
            self.string, self.is_name = b"", self.expected
        elif byte in b"{[":
            self.open.append(frozenset() if byte == 0x7B else None)
            self.expected = byte == 0x7B
        elif byte in b"}]":
            del self.open[-1:]
            self.expected = False
        elif byte == 0x2C:
            self.expected = bool(self.open) and self.open[-1] is not None
        elif byte == 0x3A:
            self.expected = False
        return True


class JsonRule(Rule):
    """No name twice in an object, and what a check says. Memories are (Names, the text)."""

    def __init__(self, check: Check | None, *, strict: bool) -> None:
        self.check, self.strict = check, strict or check is not None

    def begin(self) -> tuple[Names, bytes]:
        return Names(), b""

    def add(self, memory: tuple[Names, bytes], text: bytes) -> tuple[Names, bytes] | None:
        names = memory[0].copy()
        if not names.add(text) or (self.check and self._is_doomed(memory, text)):
            return None
        return names, memory[1] + text

    def _is_doomed(self, memory: tuple[Names, bytes], text: bytes) -> bool:
        """Whether the last name or item that ends in this text is a fault."""
        assert self.check is not None
        for mark, value in ((b",", b""), (b":", b": null")):
            head, found, _ = text.rpartition(mark)
            names = memory[0].copy()
            if not found or not names.add(head) or names.string is not None:
                continue
            ends = b"".join(b"]" if known is None else b"}" for known in reversed(names.open))
            try:
                whole = json.loads(memory[1] + head + value + ends)
            except (ValueError, RecursionError):
                continue
            if self.check.dooms(whole):
                return True
        return False

    def fault(self, memory: tuple[Names, bytes]) -> str:
        return fault(memory[1], self.check)
