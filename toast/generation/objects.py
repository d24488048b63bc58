"""Which objects of a JSON schema have no properties but those that are named: who names fields wants these.

Owns what several parts of a schema say of one object. Closes nothing where it cannot see all of them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Part = dict[str, Any]

# what else is said of the same value, by keyword: a schema, a list of them, some by name
ONE, LISTS, BY_NAME = ("not", "if", "then", "else"), ("allOf", "anyOf", "oneOf"), ("dependentSchemas", "dependencies")
BESIDE = {*ONE, *LISTS, *BY_NAME, "$ref"}
# what is said of the values inside
INSIDE = ("additionalProperties", "items", "additionalItems", "contains", "unevaluatedItems", "unevaluatedProperties",
          "prefixItems", "properties", "patternProperties")  # fmt: skip
BY_NAMES = ("properties", "patternProperties")
# what speaks of other names than `properties` and `required` do; what speaks of an object at all
OPEN = {"additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames", "minProperties",
        "dependentRequired", "enum", "const", *BY_NAME}  # fmt: skip
OBJECT = {"properties", "required", *OPEN} - {"enum", "const"}
UNSEEN = ("$dynamicRef", "$recursiveRef")


class Unseen(Exception):
    """A part of the schema is somewhere else."""


def close(schema: Any) -> None:
    """Leave each object no properties but those that are named, unless something is said of others. What is written
    stays valid: what is combined (`allOf`, `oneOf`, `not`, ...) is left as it is, and all within it."""
    try:
        closed = [part for part in _alone(schema) if _names_all(part, schema)]
    except Unseen:
        return
    for part in closed:
        part["additionalProperties"] = False


def _alone(schema: Any) -> list[Part]:
    """The parts of which each says alone what its values are."""
    found: dict[int, tuple[Part, bool]] = {}
    todo = [(schema, False)]
    while todo:
        part, combined = todo.pop()
        known = found.get(id(part))
        if not isinstance(part, dict) or known and (known[1] or not combined):
            continue
        if any(name in part for name in UNSEEN) or "$id" in part and part is not schema:
            raise Unseen
        found[id(part)] = part, combined
        todo += [(other, combined or not _is_one(part)) for other in _beside(part, schema)]
        # one value may be under a name and a pattern, or be an item and what is contained
        twice = "patternProperties" in part or "contains" in part
        todo += [(value, combined or twice) for value in _inside(part)]
    return [part for part, combined in found.values() if not combined]


def _is_one(part: Part) -> bool:
    """Whether it is one of the schemas that it refers to, and says no more of an object."""
    (name, *more) = BESIDE.intersection(part) or [""]
    one = name in ("$ref", "anyOf") or name == "allOf" and isinstance(part[name], list) and len(part[name]) == 1
    return one and not more and OBJECT.isdisjoint(part)


def _beside(part: Part, schema: Any) -> list[Any]:
    """The schemas that speak of the same value."""
    found = [part[name] for name in ONE if name in part]
    for name in LISTS:
        found += part[name] if isinstance(part.get(name), list) else []
    for name in BY_NAME:
        found += part[name].values() if isinstance(part.get(name), dict) else []
    return [*found, _target(schema, part["$ref"])] if "$ref" in part else found


def _inside(part: Part) -> Iterator[Any]:
    """The schemas of what is in a value."""
    for name in INSIDE:
        value = part.get(name)
        if isinstance(value, list):
            yield from value
        elif isinstance(value, dict) and name in BY_NAMES:
            yield from value.values()
        else:
            yield value


def _names_all(part: Part, schema: Any) -> bool:
    """Whether it names all properties that anything speaks of."""
    named = part.get("properties")
    if not (isinstance(named, dict) and named):
        return False
    seen, todo = set[int](), [part]
    while todo:
        other = todo.pop()
        if not isinstance(other, dict) or id(other) in seen:
            continue
        seen.add(id(other))
        names = [*_names(other.get("properties"), dict), *_names(other.get("required"), list)]
        if not OPEN.isdisjoint(other) or not all(isinstance(name, str) and name in named for name in names):
            return False
        todo += _beside(other, schema)
    return True


def _names(value: Any, kind: type[dict[str, Any]] | type[list[Any]]) -> list[Any]:
    """The names of what is well-formed; of what is not, one that nothing has."""
    if value is None:
        return []
    return list(value) if isinstance(value, kind) else [None]


def _target(schema: Any, reference: Any) -> Any:
    """What a reference within the schema (RFC 6901) points at; Unseen where it points anywhere else."""
    from urllib.parse import unquote

    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise Unseen
    found = schema
    for step in unquote(reference).split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(step)] if isinstance(found, list) else found[step]
        except (KeyError, IndexError, ValueError, TypeError):
            raise Unseen from None
    return found
