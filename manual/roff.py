"""A page as a manual page in the macros of man(7), which groff and mandoc both read."""

import os
import re
import textwrap

from toast import __version__
from toast.help import AGAIN, Page

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ESCAPES = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"})


def date():
    """When this version was released, by the changelog; nothing before that."""
    with open(os.path.join(ROOT, "docs", "changelog.md"), encoding="utf-8") as file:
        found = re.search(rf"^## {re.escape(__version__)} \((\d{{4}}-\d\d-\d\d)\)", file.read(), re.MULTILINE)
    return found[1] if found else ""


def filled(text):
    """A paragraph in lines of a decent length."""
    return escaped(textwrap.fill(text, 72, break_long_words=False, break_on_hyphens=False))


def escaped(text):
    """Text in which nothing is a request, an escape or a typographer's sign."""
    return re.sub(r"^([.])", r"\\&\1", text.translate(ESCAPES), flags=re.MULTILINE)


def page(command, names):
    """The manual page of a command, which names the others."""
    page = Page(command)
    lines = [r".\" Written from the declarations by python -m manual.write.",
             f'.TH {page.name.upper()} 1 "{date()}" "toast {__version__}" "User Commands"\n.nh',
             ".SH NAME", rf"{page.name} \- {escaped(lower(page.summary))}"]  # fmt: skip
    lines += [".SH SYNOPSIS", *[line for part in page.commands or [page] for line in synopsis(part)][1:]]
    lines += [".SH DESCRIPTION", *paragraphs([page.summary, *page.paragraphs])]
    if page.commands:
        lines += [".SH COMMANDS", *(line for part in page.commands for line in subcommand(part))]
    lines += [".SH OPTIONS", filled(AGAIN)]
    for heading, rows in page.groups:
        lines += [f".SS {heading}", *table(rows)]
    lines += [".SH ENVIRONMENT", *table(page.environment)]
    lines += [".SH EXIT STATUS", *table(page.statuses)]
    if page.examples:
        lines += [".SH EXAMPLES", *examples(page)[1:]]
    others = [rf".BR {name} (1)" for name in names if name != page.name]
    lines += [".SH SEE ALSO", *(f"{other} ," for other in others[:-1]), others[-1]]
    return "\n".join(lines) + "\n"


def lower(summary):
    """A sentence as the phrase of a NAME section; a name keeps its capitals."""
    return summary[:1].lower() + summary[1:].rstrip(".")


def synopsis(page):
    name, _, rest = page.usage.partition(" [OPTION]")
    return [".PP", rf"\fB{escaped(name)}\fR {styled('[OPTION]' + rest)}"]


def styled(words):
    """Names of values in italics."""
    return re.sub(r"[A-Z][A-Z]+", lambda found: rf"\fI{found[0]}\fR", escaped(words))


def paragraphs(texts):
    return [line for text in texts for line in (".PP", filled(text))][1:]


def subcommand(page):
    """A command of a group: what it does, its own options and status."""
    lines = [f'.SS "{escaped(page.name)}"', *paragraphs([page.summary, *page.paragraphs])]
    own = [(heading, rows) for heading, rows in page.groups if heading != "Every command"]
    lines += [line for _, rows in own for line in table(rows)]
    lines += [f".PP\nExit status 1: {escaped(text)}" for number, text in page.statuses if number == "1"]
    return lines + (examples(page) if page.examples else [])


def table(rows):
    return [line for term, meaning in rows for line in (".TP", bold(term), filled(meaning))]


def bold(term):
    """Flags bold, what stands for values in italics."""
    words = []
    for word in term.split():
        is_flag = word.startswith("-") or term.isupper() and "_" in term or term.isdecimal()
        bare, comma = word.rstrip(","), word[len(word.rstrip(",")) :]
        words.append(rf"\f{'B' if is_flag else 'I'}{escaped(bare)}\fR{comma}")
    return " ".join(words)


def examples(page):
    return [".PP", ".RS 4", ".EX", *escaped("\n".join(page.examples)).split("\n"), ".EE", ".RE"]
