"""Members of a zip file, and their XML as events, read up to a bound; nothing outside the file is ever asked for."""

from __future__ import annotations

from io import BytesIO
from xml.parsers import expat
from zipfile import ZipFile

from embed.formats.text import INFLATED, Unreadable
from toast.cancel import checkpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[[str, dict[str, str]], object]  # a local name, attributes by their local names

ELEMENTS = 1_000_000  # of an XML text: a thousand pages have fewer
SOME = 4096  # elements after which somebody may call it off


class Archive:
    """A zip file in memory."""

    def __init__(self, data: bytes) -> None:
        self.zip = ZipFile(BytesIO(data))
        self.names, self.left = set(self.zip.namelist()), INFLATED

    def member(self, name: str) -> bytes:
        """Its bytes; Unreadable where it is too large, other errors where it is not there or damaged."""
        with self.zip.open(name) as file:
            data = file.read(self.left + 1)
        self.left -= len(data)
        if self.left < 0:
            raise Unreadable(f"over {INFLATED >> 20} MB when it is unpacked")
        return data


def parse(data: bytes, *, start: Start, end: Callable[[str], object], text: Callable[[str], object]) -> None:
    """Call for what an XML text has, in its order; Unreadable where it defines entities or has too many elements,
    other errors where it is no XML."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    count = 0

    def refuse(*_: object) -> None:
        raise Unreadable("its XML defines entities")

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count % SOME == 0:
            checkpoint()
            if count > ELEMENTS:
                raise Unreadable(f"over {ELEMENTS} elements")
        start(_local(name), {_local(key): value for key, value in attributes.items()})

    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = begin
    parser.EndElementHandler = lambda name: end(_local(name))
    parser.CharacterDataHandler = text
    parser.Parse(data, True)  # noqa: FBT003  this is the last of it


def _local(name: str) -> str:
    return name.rpartition(":")[2]
