"""Examples: texts whose labels are known, from JSON lines, lines of `label<TAB>text`, or a folder.

Owns what an example is and what is wrong with it. Knows nothing of models.
"""

from __future__ import annotations

import codecs
import os
from stat import S_ISDIR

from rerank import labels
from toast import pipes
from toast.errors import BadInput, os_error
from toast.records import Record, Records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from toast.command import Call

LIKE = 'an example is a line like {"text": "...", "label": "..."}, or label<TAB>text'
LARGEST = 16 << 20  # bytes of a file of a folder


class Example:
    """A text, the labels that it has (one, unless they came as a list), and where it stands."""

    __slots__ = ("text", "labels", "where", "listed")

    def __init__(self, text: str, names: list[str], *, where: str, listed: bool = False) -> None:
        self.text, self.labels, self.where, self.listed = text, names, where, listed

    @property
    def label(self) -> str:
        return self.labels[0]


def read(call: Call, name: str, *, field: str | None = None) -> list[Example]:
    """The examples of a file, of standard input (-) or of a folder; BadInput where one is none."""
    if name != "-" and _is_folder(call, name):
        found = list(_of_folder(call, name))
    else:
        records = _Lines(call, [name], field=field)
        found = [_of_record(records, record) for record in records if record.raw.strip()]
    kinds = {example.listed for example in found}
    if len(kinds) > 1:
        odd = next(example for example in found if example.listed != found[0].listed)
        raise BadInput(f"{odd.where}: label and labels are mixed", "all examples have one label, or all a list")
    return found


class _Lines(Records):
    """Records of which each is JSON that begins as an object does; all of them where a field is named."""

    def __init__(self, call: Call, files: list[str], *, field: str | None) -> None:
        super().__init__(call, files, field=field)
        self.objects = self.jsonl

    def _record(self, raw: bytes, name: str, number: int) -> Record | None:
        self.jsonl = self.objects or raw.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")
        return super()._record(raw, name, number)


def names_of(call: Call, examples: Sequence[Example]) -> list[str]:
    """The labels of all examples, sorted."""
    found = sorted({label for example in examples for label in example.labels})
    labels.tell_cases(call, found)
    return found


def _is_folder(call: Call, name: str) -> bool:
    try:
        return S_ISDIR(os.stat(name, dir_fd=call.cwd).st_mode)
    except (OSError, ValueError):
        return False


def _of_record(records: Records, record: Record) -> Example:
    where = records.where(records.files[0], record.number)
    if record.data is None:
        return _of_line(record.text, where)
    data: dict[str, Any] = record.data
    if "labels" in data and "label" not in data:
        return Example(record.text, _listed(data["labels"], where), where=where, listed=True)
    if "label" not in data:
        raise BadInput(f"{where}: no field 'label'", LIKE)
    return Example(record.text, [_name(data["label"], where)], where=where)


def _of_line(line: str, where: str) -> Example:
    label, tab, text = line.partition("\t")
    if not tab:
        raise BadInput(f"{where}: no tab after a label", LIKE)
    return Example(text, [_name(label, where)], where=where)


def _listed(value: Any, where: str) -> list[str]:
    """The names of a list of labels, none of them twice; of what `classify --multi --json` writes, too."""
    if not isinstance(value, list):
        raise BadInput(f"{where}: labels {value!r} are no list", 'labels are a list like ["crash", "slow"]')
    names = [_name(one.get("label") if isinstance(one, dict) else one, where) for one in value]
    return list(dict.fromkeys(names))


def _name(value: Any, where: str) -> str:
    name = labels.spelled(value)
    if labels.fault(name):
        raise BadInput(f"{where}: label {value!r} is no printable text", LIKE)
    return name


# ---------------------------------------------------------------- a folder


def _of_folder(call: Call, folder: str) -> Iterator[Example]:
    """LABEL/FILE: a text for each file below a folder; LABEL.txt: a text for each line. Hidden ones do not count."""
    for entry in _entries(call, folder):
        path = os.path.join(folder, entry)
        if _is_folder(call, path):
            label = _name(entry, path)
            for file in _files(call, path):
                yield Example(_text(call, file), [label], where=file)
            continue
        records = Records(call, [path])
        label = _name(os.path.splitext(entry)[0], path)
        for record in records:
            if record.text.strip():
                yield Example(record.text, [label], where=records.where(path, record.number))


def _files(call: Call, folder: str) -> Iterator[str]:
    for entry in _entries(call, folder):
        path = os.path.join(folder, entry)
        if _is_folder(call, path):
            yield from _files(call, path)
        else:
            yield path


def _entries(call: Call, folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(call.path(folder)) if not name.startswith("."))
    except OSError as error:
        raise os_error(error, f"read {folder}") from None


def _text(call: Call, path: str) -> str:
    try:
        text = pipes.read_text(call, path, LARGEST)
    except OSError as error:
        raise os_error(error, f"open {path}") from None
    if text is None:
        raise BadInput(f"{path} is longer than the {LARGEST} bytes that an example may have")
    return text
