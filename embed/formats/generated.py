"""Text that a program wrote for programs: minified, packed or generated. Its beginning says what it is; the rest would
only be in the way of a search.

The rules: a name of a lock file or `.min.`/`.map`; a mark of a generator in the first lines; or lines of 300
characters on average, in which fewer than one in 12 is a blank (prose has one in 6, and scripts without blanks are not
meant).
"""

from __future__ import annotations

import re

SHORTEST = 4096  # characters: smaller files are small anyway
LONG, BLANKS, ASCII = 300, 12, 0.9
LOCKS = {
    "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "cargo.lock", "poetry.lock", "uv.lock",
    "pipfile.lock", "composer.lock", "gemfile.lock", "go.sum", "flake.lock",
}  # fmt: skip
MINIFIED = re.compile(r"[.-]min\.(js|css|mjs|cjs|html)$|\.(js|css|mjs)\.map$", re.IGNORECASE)
# the words of Go's, Bazel's, protobuf's, ... generators
MARK = re.compile(r"@generated\b|\b(auto-?)?generated\b.{0,80}\bdo not (edit|modify)\b", re.IGNORECASE)


def is_generated(name: str, text: str) -> bool:
    """name: of the file, without its folder."""
    if len(text) < SHORTEST:
        return False
    head = text[:65536]
    if name.lower() in LOCKS or MINIFIED.search(name) or MARK.search("\n".join(head[:2000].split("\n")[:12])):
        return True
    lines = head.count("\n") + 1
    return (
        len(head) / lines > LONG
        and BLANKS * sum(map(head.count, " \t")) < len(head)
        and sum(map(str.isascii, head)) > ASCII * len(head)
    )
