"""Which chat templates only write the messages' contents out and never look into them.

Their output is the same for any contents, so `chat_template.py` may remember it. Knows jinja2's syntax
tree; says no to everything that it does not know to be harmless.
"""

from __future__ import annotations

from jinja2 import nodes

# nodes that would hide what becomes of the text written inside them, or reach for more than messages
OPAQUE = (
    nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock, nodes.Include, nodes.Import,
    nodes.FromImport, nodes.Extends, nodes.Block, nodes.With, nodes.Call,
)  # fmt: skip
LOOK = (nodes.Getitem, nodes.Getattr)
PLACE = {"first", "last", "index", "index0", "revindex", "revindex0", "length"}  # of `loop`


def is_static(tree: nodes.Template) -> bool:
    """Whether contents are only ever written, alone or joined to other text."""
    lists = {"messages"}
    ones = {loop.target.name for loop in tree.find_all(nodes.For) if _is_list(loop.iter, lists)
            if isinstance(loop.target, nodes.Name)}  # fmt: skip
    if any(True for _ in tree.find_all(OPAQUE)) or lists & ones:
        return False
    return all(_harmless(node, lists, ones) for node in tree.body)


def _is_list(node: nodes.Node, lists: set[str]) -> bool:
    """`messages`, or a slice of it."""
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        node = node.node
    return isinstance(node, nodes.Name) and node.name in lists


def _is_one(node: nodes.Node, lists: set[str], ones: set[str]) -> bool:
    """A single message: a loop's variable, or `messages` at a fixed place."""
    if isinstance(node, nodes.Name):
        return node.name in ones
    if not isinstance(node, nodes.Getitem):
        return False
    return isinstance(node.arg, (nodes.Const, nodes.Neg)) and _is_list(node.node, lists)


def _field(node: nodes.Getattr | nodes.Getitem) -> str | None:
    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) else None


def _harmless(node: nodes.Node, lists: set[str], ones: set[str], *, written: bool = False) -> bool:
    """`written`: the node's value goes straight to the output, at most joined to other text."""
    if isinstance(node, LOOK) and _is_one(node.node, lists, ones):
        field = _field(node)
        return field == "role" or (field == "content" and written)
    if isinstance(node, LOOK) and isinstance(node.node, nodes.Name) and node.node.name == "loop":
        return _field(node) in PLACE
    if isinstance(node, nodes.For) and _is_list(node.iter, lists):
        return all(_harmless(n, lists, ones) for n in [*node.body, *node.else_, *filter(None, [node.test])])
    if isinstance(node, nodes.Name) and node.name in lists | ones | {"loop", "self", "strftime_now"}:
        return False
    passed = isinstance(node, nodes.Output) or (written and isinstance(node, (nodes.Add, nodes.Concat)))
    return all(_harmless(child, lists, ones, written=passed) for child in node.iter_child_nodes())
