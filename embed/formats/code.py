"""Code by its structure: where functions and classes begin and end, and their paths of names (`Class.method`).

Owns which nodes of a syntax tree define something, and what their names are. The trees are tree-sitter's (the extra
`code`); without it, or where nothing is defined, the chunker goes by lines.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Node

    Section = tuple[int, int, str]  # first and last line from 0, path of names

# suffix -> the grammar: a module, and its function where there are several
GRAMMARS = {
    **dict.fromkeys(("py", "pyi"), "python"), **dict.fromkeys(("c", "h"), "c"),
    **dict.fromkeys(("cc", "cpp", "cxx", "hpp", "hh", "hxx"), "cpp"), "rs": "rust", "go": "go", "java": "java",
    **dict.fromkeys(("js", "jsx", "mjs", "cjs"), "javascript"),
    **dict.fromkeys(("ts", "mts", "cts"), "typescript:language_typescript"), "tsx": "typescript:language_tsx",
    "rb": "ruby", **dict.fromkeys(("sh", "bash"), "bash"),
}  # fmt: skip
# what contains others; of a function only the whole is meant
OUTER = {
    "class_definition", "class_specifier", "struct_specifier", "union_specifier", "namespace_definition", "impl_item",
    "trait_item", "mod_item", "class_declaration", "abstract_class_declaration", "interface_declaration", "class",
    "enum_declaration", "record_declaration", "annotation_type_declaration", "internal_module", "module",
    "singleton_class",
}  # fmt: skip
INNER = {
    "function_definition", "function_item", "function_declaration", "generator_function_declaration",
    "method_declaration", "constructor_declaration", "compact_constructor_declaration", "method_definition", "method",
    "singleton_method", "struct_item", "enum_item", "union_item", "macro_definition", "enum_specifier", "type_spec",
    "type_alias_declaration", "function_signature_item",
}  # fmt: skip
NEED_BODY = {"struct_specifier", "class_specifier", "union_specifier", "enum_specifier"}  # without it: a mention
# what stands around definitions
AROUND = {
    "program", "translation_unit", "source_file", "decorated_definition", "export_statement", "template_declaration",
    "block", "class_body", "interface_body", "enum_body", "enum_body_declarations", "declaration_list",
    "statement_block", "field_declaration_list", "body_statement", "type_declaration", "linkage_specification",
    "preproc_ifdef",
    "preproc_if", "preproc_else", "if_statement", "expression_statement", "type_definition", "declaration",
    "lexical_declaration", "variable_declaration", "ambient_declaration",
}  # fmt: skip
FUNCTIONS = {"arrow_function", "function_expression", "generator_function", "class"}  # const f = () => ...
BEFORE = {"comment", "line_comment", "block_comment", "attribute_item", "annotation"}  # what belongs to the next
DEEPEST = 50  # definitions in each other
LARGEST = 4 << 20  # bytes of a file that is parsed


def is_known(suffix: str) -> bool:
    return suffix in GRAMMARS


def is_there(suffix: str) -> bool:
    """Whether the grammar for such files is installed."""
    names = ("tree_sitter", f"tree_sitter_{GRAMMARS[suffix].partition(':')[0]}")
    return all(find_spec(name) is not None for name in names)


def sections(text: str, suffix: str) -> list[Section]:
    """What a text defines, in its order, outer before inner ones; nothing where it is not to be parsed."""
    if suffix not in GRAMMARS or not is_there(suffix):
        return []
    import tree_sitter

    data = text.encode()
    if len(data) > LARGEST:
        return []
    module, _, function = GRAMMARS[suffix].partition(":")
    grammar = getattr(import_module(f"tree_sitter_{module}"), function or "language")
    root = tree_sitter.Parser(tree_sitter.Language(grammar())).parse(data).root_node
    return list(_definitions(root))


def joints(text: str, found: list[Section]) -> dict[int, int]:
    """Line from 0 -> 2 where a definition begins and where one has ended, 1 after a blank line."""
    rows = text.split("\n")
    filled = [i for i, row in enumerate(rows) if row.strip()]
    known = {i: 1 for i in filled if i == 0 or not rows[i - 1].strip()}
    following = dict(zip([-1, *filled], filled, strict=False))  # a filled line -> the next one
    for first, last, _ in found:
        known[first] = 2
        if (after := following.get(last)) is not None and rows[after].strip("}); \t\r"):
            known[after] = 2
    return known


def name_at(found: list[Section], first: int, last: int) -> str:
    """The path of names for lines: of the innermost definition around them, else of the first that begins in them."""
    around = [path for a, b, path in found if a <= first and last <= b]
    begun = [path for a, _, path in found if first <= a <= last]
    return around[-1] if around else begun[0] if begun else ""


def _definitions(root: Node) -> Iterator[Section]:
    levels: list[tuple[Node, tuple[str, ...]]] = [(root, ())]
    while levels:
        node, path = levels.pop()
        inner = path
        name = _name(node) if node is not root and (node.type in OUTER or node.type in INNER or _is_value(node)) else ""
        if name:
            inner = (*path, name)
            yield _first_line(node), _last_line(node), ".".join(inner)
        if node is root or len(inner) < DEEPEST and (node.type in AROUND or node.type in OUTER):
            levels += [(child, inner) for child in reversed(node.named_children)]


def _is_value(node: Node) -> bool:
    """Whether it is `f = () => ...` of a declaration."""
    value = node.child_by_field_name("value") if node.type == "variable_declarator" else None
    return value is not None and value.type in FUNCTIONS


def _first_line(node: Node) -> int:
    """With the decorators, attributes and comments right before it."""
    while (parent := node.parent) and parent.type in (
        "decorated_definition", "export_statement", "template_declaration", "lexical_declaration",
        "variable_declaration", "type_declaration",
    ) and parent.named_children[-1] == node:  # fmt: skip
        node = parent
    first = node.start_point[0]
    before = node.prev_sibling
    while before and before.type in BEFORE and first - 1 <= _last_line(before) <= first:
        above = before.prev_sibling
        if above and _last_line(above) == before.start_point[0]:  # it ends the line of another statement
            break
        first, before = before.start_point[0], above
    return first


def _last_line(node: Node) -> int:
    line, column = node.end_point
    return line - (column == 0)  # some comments have their line break


def _name(node: Node) -> str:
    """What a node defines; nothing where it only mentions it."""
    if node.type in NEED_BODY and node.child_by_field_name("body") is None:
        return ""
    found = node.child_by_field_name("type" if node.type == "impl_item" else "name")
    inner: Node | None = node
    while found is None and inner is not None and (inner := inner.child_by_field_name("declarator")) is not None:
        found = None if inner.child_by_field_name("declarator") else inner  # C's way
    text = _text(found).partition("<")[0].replace("::", ".")
    receiver = node.child_by_field_name("receiver")  # func (s *Server) Run()
    if receiver is not None and node.type == "method_declaration":
        of = _text(receiver).strip("() ").split(" ")[-1].lstrip("*").partition("[")[0]
        return f"{of}.{text}"
    return " ".join(text.split())[:100]


def _text(node: Node | None) -> str:
    return (node.text or b"").decode("utf-8", "replace") if node is not None else ""
