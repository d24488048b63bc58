"""Completion for fish."""

from manual import values
from toast.help import meaning
from toast.options import Operand

MODELS = f"""
function __toast_models
    command sh -c '{values.MODELS.replace(chr(92), chr(92) * 2)}'
end
"""
INDEXES = "(__fish_complete_suffix .db)"
FOLDERS = "(__fish_complete_directories)"
TAKES = {
    "models": "-r -a '(__toast_models)'", "indexes": f"-r -k -a '{INDEXES}'", "folders": f"-x -a '{FOLDERS}'",
    "files": "-r", "text": "-x",
}  # fmt: skip


def files(command, names):
    """(name of a file, its text): the other names of a command are completed as the first."""
    name, *others = names
    lines = [f"# fish completion of {name}; written from the declarations by manual.write"]
    if command.commands:
        parts = " ".join(command.commands)
        without = f"-n 'not __fish_seen_subcommand_from {parts}'"
        for part, its in command.commands.items():
            lines.append(f"complete -c {name} {without} -f -a {part} -d {quoted(first(its.help))}")
        lines += options(command, f"-c {name} {without}")
        for part, its in command.commands.items():
            lines += options(its, f"-c {name} -n '__fish_seen_subcommand_from {part}'")
    else:
        lines += options(command, f"-c {name}")
    text = "\n".join(lines) + "\n"
    text = text.replace("\n", MODELS + "\n", 1) if "__toast_models" in text else text
    return [(f"{name}.fish", text), *((f"{other}.fish", f"complete -c {other} -w {name}\n") for other in others)]


def first(doc):
    return doc.strip().split("\n")[0]


def quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def options(command, where):
    """A line for each option, and one for operands."""
    for p in values.options(command):
        flags = " ".join(f"-s {flag[1:]}" if len(flag) == 2 else f"-l {flag[2:]}" for flag in p.flags)
        kind = values.kind(p)
        takes = f"-x -a '{' '.join(p.choices)}'" if kind == "choices" else TAKES.get(kind, "")
        yield " ".join(filter(None, [f"complete {where} {flags}", takes, f"-d {quoted(meaning(p))}"]))
    kinds = {values.kind(p) for p in command.parameters if isinstance(p, Operand)}
    if "models" in kinds:
        yield f"complete {where} -a '(__toast_models)'"
    elif not kinds & {"files", "indexes", "folders"} and not command.commands:
        yield f"complete {where} -f"
