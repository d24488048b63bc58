"""What an operand that is no file was most likely meant as: text, labels, words of a query or an instruction.

Owns the lines that say what to type instead. Imported when a file is not there.
"""

from __future__ import annotations

import os

from toast import pipes, spellings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from toast.command import Call

FIRST = {"toast": "instruction", "search": "query", "rerank": "query"}  # what their first operand is
MANY = ("files", "operands", "paths")  # how the others are called
LONGEST = 60  # characters that a message repeats
INSTEAD = ("queries", "like", "dupes", "query_field")  # options in whose place there is no query


def hint(call: Call, values: Mapping[str, Any], name: str) -> str:
    """What to type where the operand `name` of these values is no file; "" where nothing better is known."""
    files: list[str] = next((values[kind] for kind in MANY if kind in values), [])
    first = values.get(FIRST.get(call.name, ""))
    if name in values.get("index", []) and not _is_name(name):
        return f"-i names an index: {shown(call.name, *filter(None, (name, first)), *files)}"
    if name not in files and name != first:
        return ""
    if instead := [kind for kind in INSTEAD if values.get(kind) not in (None, False)]:
        return f"with --{instead[0].replace('_', '-')} there is no QUERY, every operand is a FILE"
    if call.name in FIRST:
        return unquoted(call, first or "", files)
    if call.name == "classify" and "," in name and not (values["labels"] or values["label_file"]):
        return f"labels come after -l: {shown(call.name, '-l', *files)}"
    text = f"echo {quoted(name)} |" if name == short(name) else "... |"
    return (
        "" if _is_name(name) else f"text goes in on standard input: {text} {shown(call.name, *_labels(call, values))}"
    )


def _labels(call: Call, values: Mapping[str, Any]) -> list[str]:
    """What `classify` has its labels from, or may have."""
    if call.name != "classify" or values["model"] != "minilm" and not (values["labels"] or values["label_file"]):
        return []
    return ["-L", values["label_file"]] if values["label_file"] else ["-l", values["labels"] or "A,B,C"]


def unquoted(call: Call, first: str, names: list[str]) -> str:
    """For operands of which some are no files: one sentence without quotes, or two things in the wrong order."""
    if any(len(name) > LONGEST or "\n" in name for name in names):
        return f"text goes in on standard input: {shown(call.name, first)} < FILE"
    there = [word for word in (first, *names) if _exists(call, word)]
    words = [word for word in (first, *names) if word not in there]
    if " " in first and first not in there:
        text = next(word for word in names if word not in there)
        line = f"echo {quoted(text)} | {shown(call.name, first)}"
        return "" if _is_name(text) else f"text goes in on standard input: {line}"
    if call.name == "toast" and len(words) == 2 and not there and (told := spellings.verb(*words)):
        return f"{told}; or as an instruction: {shown(call.name, ' '.join(words))}"
    if len(words) > 1 and _is_name(words[-1]):
        return ""
    what = FIRST[call.name]
    said = f"the {what} is one argument" if len(words) > 1 else f"the {what} comes first"
    return f"{said}: {shown(call.name, ' '.join(words), *there)}"


def short(word: str) -> str:
    """A word as a message names it."""
    word = pipes.clean(word)
    return word if len(word) <= LONGEST else word[:LONGEST] + "..."


def shown(*words: str) -> str:
    """Words as a command line; those with blanks in quotes."""
    return " ".join(quoted(word) if " " in word or not word else pipes.clean(word) for word in words)


def quoted(words: str) -> str:
    """As a shell takes them for one argument."""
    words = pipes.clean(words)
    if not any(c in words for c in '"$`\\!'):
        return f'"{words}"'
    from shlex import quote

    return quote(words)


def _exists(call: Call, name: str) -> bool:
    try:
        os.stat(name, dir_fd=call.cwd)
    except (OSError, ValueError):
        return False
    return True


def _is_name(word: str) -> bool:
    """Whether a word looks like the name of a file."""
    return " " not in word and ("/" in word or "." in word.strip("."))
