"""Writes the reference (docs/reference), manual pages and completions (share) from the declarations.

python -m manual.write after a change to them; tests/test_manual.py fails while what is written is another.
"""

import os
import tomllib
from importlib import import_module

from manual import bash, fish, markdown, roff, zsh

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def commands():
    """[(command, all names of its executables)] in the order of pyproject.toml."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        scripts = tomllib.load(file)["project"]["scripts"]
    targets = dict.fromkeys(scripts.values())
    for target in targets:
        module, _, function = target.partition(":")
        names = [name for name, its in scripts.items() if its == target]
        yield getattr(import_module(module), function), names


def files():
    """path -> text of all that is written."""
    found = {}
    declared = [*commands()]
    for command, (name, *others) in declared:
        found[f"docs/reference/{name}.md"] = markdown.page(command)
        found[f"share/man/man1/{name}.1"] = roff.page(command, [c.name for c, _ in declared])
        found |= {f"share/man/man1/{other}.1": f".so man1/{name}.1\n" for other in others}
        for shell, folder in (
            (bash, "bash-completion/completions"), (zsh, "zsh/site-functions"), (fish, "fish/vendor_completions.d"),
        ):  # fmt: skip
            found |= {f"share/{folder}/{path}": text for path, text in shell.files(command, [name, *others])}
    found["docs/reference/README.md"] = markdown.contents([command for command, _ in declared])
    return found


def main():
    texts = files()
    for folder in {os.path.dirname(path) for path in texts}:
        os.makedirs(os.path.join(ROOT, folder), exist_ok=True)
        for name in os.listdir(os.path.join(ROOT, folder)):
            if f"{folder}/{name}" not in texts:
                os.remove(os.path.join(ROOT, folder, name))
    for path, text in texts.items():
        with open(os.path.join(ROOT, path), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
