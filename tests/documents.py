"""The code blocks of Markdown documents, run as they are written.

A block of `console` has commands after `$ `, and what each prints; one of `sh` commands alone; one after a `file:` note
is written into that file. Notes are HTML comments before a block, which no reader sees:
    <!-- needs: jq sqlite3 -->   programs without which the section cannot be run
    <!-- file: Makefile -->      the block is a file
    <!-- varies -->              what is printed depends on the machine or the day: it is not compared
    <!-- while: COMMAND -->      the block never ends: it runs, COMMAND does, and then it prints what stands there
    <!-- not run -->             nothing of it is run
"""

import re

FENCE = re.compile(r"(?P<notes>(?:<!--[^\n]*-->\n)*)```(?P<language>\w*)\n(?P<text>.*?)\n?```\n", re.DOTALL)
NOTE = re.compile(r"<!-- (?P<name>[a-z ]+?)(?:: (?P<value>.*?))? -->")
NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?![\w.])")
TOLERANCE = 0.03  # of a score: another CPU adds up in another order


class Block:
    """A fenced block: its language, its text, its notes (name -> value)."""

    def __init__(self, language, text, notes):
        self.language, self.text, self.notes = language, text, notes

    def steps(self):
        """(command, what it prints, None where nobody says) of each command."""
        if self.language == "sh":
            return [(self.text, None)]
        steps = []
        for line in self.text.split("\n"):
            if line.startswith("$ "):
                steps.append([line[2:], []])
            elif steps[-1][0].endswith("\\") or steps[-1][0].count("'") % 2:  # a command of several lines
                steps[-1][0] += "\n" + line
            else:
                steps[-1][1].append(line)
        return [(command, "".join(f"{line}\n" for line in printed)) for command, printed in steps]


def sections(text):
    """(heading, blocks) of the parts of a document that have blocks; a part begins with `## `."""
    for part in re.split(r"^(?=## )", text, flags=re.MULTILINE):
        heading = part.split("\n", 1)[0].lstrip("# ")
        blocks = [
            Block(
                found["language"],
                found["text"],
                {note["name"]: note["value"] for note in NOTE.finditer(found["notes"])},
            )
            for found in FENCE.finditer(part)
        ]
        if blocks:
            yield heading, blocks


def alike(printed, expected):
    """The same but for the last digits of scores."""
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (printed, expected)]
    words = [NUMBER.sub("#", text) for text in (printed, expected)]
    return words[0] == words[1] and all(abs(a - b) <= TOLERANCE for a, b in zip(*numbers, strict=True))
