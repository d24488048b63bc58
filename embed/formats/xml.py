"""Members of a zip file, and their XML as events, read up to a bound; nothing outside the file is ever asked for."""

from __future__ import annotations

from io import BytesIO
from xml.parsers import expat
from zipfile import BadZipFile, ZipFile

from embed.formats.text import INFLATED, Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[[str, dict[str, str]], object]  # a local name, attributes by their local names


class Archive:
    """A zip file in memory."""

    def __init__(self, data: bytes) -> None:
        try:
            self.zip = ZipFile(BytesIO(data))
        except (BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise Unreadable(f"damaged: {error}") from None
        self.names, self.left = set(self.zip.namelist()), INFLATED

    def member(self, name: str) -> bytes:
        """Its bytes; Unreadable where it is not there, damaged or too large."""
        try:
            with self.zip.open(name) as file:
                data = file.read(self.left + 1)
        except (KeyError, BadZipFile, ValueError, NotImplementedError, RuntimeError, OSError, EOFError) as error:
            raise Unreadable(f"damaged: {error}") from None
        except Exception as error:  # zlib.error, without importing zlib for its name
            raise Unreadable(f"damaged: {error}") from None
        self.left -= len(data)
        if self.left < 0:
            raise Unreadable(f"over {INFLATED >> 20} MB when it is unpacked")
        return data


def parse(data: bytes, *, start: Start, end: Callable[[str], object], text: Callable[[str], object]) -> None:
    """Call for what an XML text has, in its order; Unreadable where it is none, or defines entities."""
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def refuse(*_: object) -> None:
        raise Unreadable("its XML defines entities")

    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = lambda name, found: start(_local(name), {_local(k): v for k, v in found.items()})
    parser.EndElementHandler = lambda name: end(_local(name))
    parser.CharacterDataHandler = text
    try:
        parser.Parse(data, True)  # noqa: FBT003  this is the last of it
    except expat.ExpatError as error:
        raise Unreadable(f"damaged: {error}") from None


def _local(name: str) -> str:
    return name.rpartition(":")[2]
