"""A page as Markdown, for docs/reference."""

import re

from toast.help import AGAIN, Page

WRITTEN = "<!-- Written from the declarations by python -m manual.write. -->"


def escaped(text):
    return re.sub(r"([\\*_<\[\]])", r"\\\1", text)


def page(command):
    """The reference of a command."""
    page = Page(command)
    lines = [
        "<!-- Written from the declarations by python -m manual.write. -->",
        "",
        f"# {page.name}",
        "",
        escaped(page.summary),
    ]
    lines += ["", "```", *([part.usage for part in page.commands] or [page.usage]), "```"]
    lines += [line for text in page.paragraphs for line in ("", escaped(text))]
    lines += examples(page, "##")
    for part in page.commands:
        lines += ["", f"## {part.name}", "", escaped(part.summary)]
        lines += [line for text in part.paragraphs for line in ("", escaped(text))]
        lines += examples(part, "###")
        lines += groups([(heading, rows) for heading, rows in part.groups if heading != "Every command"], "###")
        lines += [f"\nExit status 1: {escaped(text)}" for number, text in part.statuses if number == "1"]
    lines += groups(page.groups, "##")
    lines += ["", AGAIN, "", "## Environment", "", *table(page.environment), "", "## Exit status", ""]
    return "\n".join([*lines, *table(page.statuses)]) + "\n"


def examples(page, level):
    return ["", f"{level} Examples", "", "```sh", *page.examples, "```"] if page.examples else []


def groups(groups, level):
    return [line for heading, rows in groups for line in ("", f"{level} {heading}", "", *table(rows))]


def table(rows):
    return [f"- `{' '.join(term.split())}`: {escaped(meaning)}" for term, meaning in rows]


def contents(commands):
    """The first page of the reference, and where an installation has manual pages and completions."""
    lines = [f"- [{command.name}]({command.name}.md): {escaped(Page(command).summary)}" for command in commands]
    return CONTENTS.format("\n".join(lines))


CONTENTS = (
    WRITTEN
    + """

# Reference

{}

The same is told by `COMMAND --help`, and by `man COMMAND`.

## Manual pages and completions

They are installed under `share` beside the `bin` of the commands: in a virtual environment `.venv/share`. `man` looks
there by itself for every `bin` on `PATH`. So does bash-completion from 2.12 on; otherwise one line makes a shell look
there, with the folder in the place of PREFIX:

```sh
# bash, in ~/.bashrc
for f in PREFIX/share/bash-completion/completions/*; do . "$f"; done
# zsh, in ~/.zshrc before compinit
fpath+=(PREFIX/share/zsh/site-functions)
# fish, in ~/.config/fish/config.fish
set -p fish_complete_path PREFIX/share/fish/vendor_completions.d
```
"""
)
