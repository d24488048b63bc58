"""What is indexed: files, and records of standard input or of files, one by one.

Knows paths, bytes and fields; nothing of chunks, models or tables.
"""

import os

from _blake2 import blake2b

from toast import pipes
from toast.errors import BadInput

LARGEST = 16 << 20  # bytes of a file that is read, unless told otherwise


class Document:
    """A file or a record. number: of the record in its input; name: its id; data: its other fields.

    A file that is not there has None for its content.
    """

    __slots__ = ("path", "number", "name", "hash", "data", "content", "id", "size")

    def __init__(self, path, content, number=None, name=None, data=None, raw=None):
        self.path, self.number, self.name, self.data, self.id = path, number, name, data, None
        self.content = content  # a file's bytes, a record's text
        raw = (content if raw is None else raw) or b""
        self.hash, self.size = blake2b(raw, digest_size=16).digest(), len(raw) + 1


class Files:
    """The files of a walk. Iterating a second time walks again."""

    again = True

    def __init__(self, walk):
        self.walk = walk

    def __iter__(self):
        for path, data in self.walk:
            yield Document(path, data)


class RecordsOf:
    """The records of standard input or of named files. id: the field that identifies one."""

    again, walk = False, None

    def __init__(self, inputs, field, id):
        self.inputs, self.field, self.id = inputs, field, id

    def __iter__(self):
        for path, records in self.inputs:
            for number, record in enumerate(records, 1):
                name = data = None
                if record.data is not None:
                    data = {key: value for key, value in record.data.items() if key != self.field}
                    name = self._name(record.data, path, number)
                    data = pipes.json_line(data).decode()[:-1] if data else None
                yield Document(path, record.text, number, name, data, record.raw)

    def _name(self, data, path, number):
        if not self.id:
            return None
        if self.id not in data:
            raise BadInput(f"{path}, record {number}: no field {self.id!r}", "--id NAME")
        return str(data[self.id])


def source(call, paths, files_from, largest, nul, jsonl, field, id):
    """What the command line names: files and directories, or records."""
    if files_from:
        names = pipes.Records(call, [files_from], nul)
        paths = [*paths, *(os.fsdecode(record.raw) for record in names if record.raw)]
    elif not paths or jsonl or field:
        names = paths or ["-"]
        inputs = [(name, pipes.Records(call, [name] if paths else (), nul, jsonl, field)) for name in names]
        return RecordsOf(inputs, field or "text", id)
    from embed.walk import Walk

    return Files(Walk(call, paths, largest, whole=bool(files_from)))
