"""A picture of a terminal in which the commands were really run: session.py OUT.svg (needs rich; `make bench`)."""

import os
import shutil
import subprocess
import sys
import tempfile

from rich.console import Console
from rich.text import Text

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMMANDS = [
    'search -k 2 "how do I get back data that was deleted" notes',
    'search -k 1 "ran out of disk" < app.log',
    'search -q "the height of the Eiffel tower" notes || echo "not in these notes"',
    "classify -L labels.txt feedback.txt | head -4",
    'rerank -k 2 "trouble with a payment" feedback.txt',
    "classify --group 4 feedback.txt",
    'echo "Olga Petrova lives in Oslo" | toast --schema form.json',
]


def main(path):
    width = 104
    console = Console(
        record=True, width=width, file=open(os.devnull, "w"), color_system="truecolor", force_terminal=True
    )
    env = dict(os.environ, COLUMNS=str(width), PATH=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(os.path.join(ROOT, "examples"), folder, dirs_exist_ok=True)
        for command in COMMANDS:
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")), soft_wrap=True)
            coloured = command.replace("search -k", "search --color always -k")
            ran = subprocess.run(coloured, shell=True, cwd=folder, env=env, capture_output=True, text=True)
            console.print(
                Text.from_ansi((ran.stdout + ran.stderr).rstrip("\n").expandtabs()), overflow="ellipsis", no_wrap=True
            )
            console.print()
    console.save_svg(path, title="toast", font_aspect_ratio=0.61)


main(sys.argv[1])
