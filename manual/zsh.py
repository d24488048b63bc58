"""Completion for zsh, by _arguments."""

from manual import values
from toast.help import meaning, value
from toast.options import Operand

MODELS = f"""\
#autoload
# names of models; written from the declarations by manual.write
local -a names
names=(${{(f)"$(command sh -c '{values.MODELS}')"}})
_alternative 'models:model:compadd -a names' 'files:file:_files'
"""
DO = {"models": "_toast_models", "indexes": '_files -g "*.db"', "folders": "_files -/", "files": "_files", "text": " "}


def files(command, names):
    """(name of a file, its text): one for all names of a command; zsh finds it by its first line."""
    head = f"#compdef {' '.join(names)}\n# written from the declarations by manual.write\n"
    own = "_toast" if names[0] == "toast" else f"_toast_{names[0]}"
    body = group(command, own) if command.commands else arguments(command, "")
    return [(own, f"{head}\n{body}"), ("_toast_models", MODELS)]


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def said(text):
    """In the brackets of a specification."""
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def option(p):
    """A specification: '(-m --model)'{-m+,--model=}'[what it is]:MODEL:_toast_models'."""
    short = [flag for flag in p.flags if len(flag) == 2]
    long = [flag for flag in p.flags if len(flag) > 2]
    takes = values.kind(p) != "flag"
    flags = [*(flag + "+" * takes for flag in short), *(flag + "=" * takes for flag in long)]
    front = "'*'" if p.many else quoted(f"({' '.join(p.flags)})") if len(p.flags) > 1 else ""
    spelled = "{" + ",".join(flags) + "}" if len(flags) > 1 else flags[0]
    told = f"[{said(meaning(p))}]"
    if takes:
        action = f"({' '.join(p.choices)})" if p.choices else DO[values.kind(p)]
        told += f":{said(value(p))}:{action}"
    return front + spelled + quoted(told)


def arguments(command, indent):
    specs = [option(p) for p in values.options(command)]
    for number, p in enumerate((p for p in command.parameters if isinstance(p, Operand)), 1):
        place = "*" if p.many else str(number)
        specs.append(quoted(f"{place}:{said(p.metavar)}:{DO[values.kind(p)]}"))
    return f" \\\n{indent}    ".join([f"{indent}_arguments -s -S", *specs]) + "\n"


def group(command, own):
    """The first word says which command; the others are its own."""
    lines = ["local curcontext=$curcontext state line", "local -a parts", "parts=("]
    for name, part in command.commands.items():
        lines.append("    " + quoted(f"{name}:{said(part.help.strip().split(chr(10))[0])}"))
    specs = [*map(option, values.options(command)), "'1: :->command'", "'*:: :->words'"]
    lines += [")", " \\\n    ".join(["_arguments -C -s", *specs])]
    lines += ["case $state in", "command) _describe command parts ;;", "words)", "    case $words[1] in"]
    for name, part in command.commands.items():
        lines += [f"    {name})", arguments(part, "        ").rstrip("\n"), "        ;;"]
    return "\n".join([*lines, "    esac", "    ;;", "esac", ""])
