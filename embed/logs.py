"""How a log is told from other texts, and where its entries begin: at their times.

Knows lines; nothing of files or of what a chunk is. Imports little: `search` asks it about each hit.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LEVEL = r"(?:TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERR(?:OR)?|CRIT(?:ICAL)?|SEVERE|FATAL|ALERT|EMERG(?:ENCY)?|PANIC)\b"
MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
DATE = (
    r"(?:\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?(?:[-/.]\d{2,4})?|[IWEF]\d{4}"
    rf"|(?:[A-Z][a-z]{{2}},? )?{MONTH} +\d\d?,?(?: \d{{4}})?|(?:[A-Z][a-z]{{2}}, )?\d\d?[-/ ]{MONTH}[-/ ]\d{{2,4}})"
)
# not the first of a table's cells, nor of a range
TIME = r"\d\d?:\d\d(?::\d\d)?(?:[.,]\d{1,9})?(?: ?[AP]M\b| ?Z\b| ?[-+]\d\d:?\d\d)?(?![\w,;-]|:\d)"
STAMP = rf"{DATE}[ T:,]+{TIME}"
# a date and a time; in brackets a time is enough, or seconds (dmesg), and so it is beside a level or a bracket
ENTRY = (
    rf"(?:<\d{{1,3}}>(?:\d )?)?(?:\[?{LEVEL}\]?:?\s+)?[\[(]?{STAMP}|\S+ \S+ \S+ \[{STAMP}"
    rf"|(?:<\d{{1,3}}>)?[\[(](?:{TIME}| *\d+\.\d{{6}})[\])]|{TIME}\s+[\[<(]?{LEVEL}|{TIME}\s+\["
    rf"|\[?{LEVEL}\]?:?\s+{TIME}"
    rf'|\{{\s*"[@\w]+":\s*"{STAMP}|\{{\s*"@?(?:ts|time|timestamp)":\s*\d'
)
LIKELY = re.compile(r"[\[(<{]|[^\n]{0,60}?\d:\d\d")  # few other lines do
TRACE = re.compile(r"\s|Traceback |Caused by: |During handling |The above exception |[\w.$]+(?:Error|Exception)\b")
LOG_ROWS = 50  # lines that tell whether a text is a log


def is_log(text: str) -> bool:
    """Whether two lines, and half of those that are in no stack trace, begin entries: each is about something else."""
    rows = (row for row in text[: 1 << 16].splitlines() if row.strip() and not TRACE.match(row))
    first = list(islice(rows, LOG_ROWS))
    begun = sum(map(is_entry, first))
    return begun > 1 and 2 * begun >= len(first)


def is_entry(text: str) -> bool:
    """Whether it begins as an entry of a log does: with a time."""
    return LIKELY.match(text) is not None and _entry().match(text) is not None


@cache
def _entry() -> re.Pattern[str]:
    """Compiling it takes longer than most queries."""
    return re.compile(ENTRY)


def entries(rows: Iterable[str]) -> Iterator[int]:
    """A log's entry goes on where no time begins a line, as a stack trace does."""
    return map(int, map(is_entry, rows))
