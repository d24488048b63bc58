"""Help, completion and error messages: the declarations of `options.py`, told to Typer.

Imported only when somebody asks for help or types what the small parser does not take.
"""

from __future__ import annotations

import difflib
import inspect
import io
import re
from contextlib import redirect_stderr, redirect_stdout, suppress

import typer
from typer.exceptions import Exit, TyperException

from toast import options
from toast.errors import HelpRequested, UsageError
from toast.options import Operand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from toast.command import Call, Command, Group
    from toast.options import Parameter

SAME = {  # what other programs call the commands of a group
    "list": "ls", "remove": "rm", "delete": "rm", "fetch": "pull", "get": "pull", "download": "pull", "install": "pull",
    "info": "show", "inspect": "show", "check": "verify", "name": "alias", "where": "path", "export": "convert",
    "start": "run", "serve": "run", "kill": "stop", "quit": "stop", "ps": "status",
}  # fmt: skip
EPILOG = "Exit status: 0 done; 1 nothing found; 2 any error; 3 with --strict, an input or an answer was cut."


def parse(command: Command, words: list[str]) -> dict[str, Any]:
    """What the command line gives, by name, as `options.parse`; raises HelpRequested or UsageError."""
    spoken = io.StringIO()
    try:
        with redirect_stdout(spoken), redirect_stderr(spoken):
            context = build(command).make_context(command.name, list(words))
    except (Exit, SystemExit) as end:  # Typer's completion options end the process
        if getattr(end, "exit_code", 0) or getattr(end, "code", 0):
            raise UsageError(
                spoken.getvalue().strip().rstrip("."), "bash, zsh, fish and powershell are known"
            ) from None
        raise HelpRequested(spoken.getvalue()) from None
    except TyperException as error:
        message = error.format_message().replace("Value error, ", "").rstrip(".")
        hint = f"try: {command.name} --help"
        if re.search(r"^no such option: -[^-]", message, re.IGNORECASE):
            hint += "; text that begins with - comes after --"
        raise UsageError(message[:1].lower() + message[1:], hint) from None
    return options.values(command.parameters, {name: _words(value) for name, value in context.params.items()})


def _words(value: Any) -> Any:
    """What was typed, as the small parser has it: a list of words, True for a flag, nothing."""
    return [value] if isinstance(value, str) else value


def complete(command: Command | Group, call: Call) -> NoReturn:
    """Answer the shell's completion request (Typer's protocol); does not return."""
    build(command).main(prog_name=command.name, obj=call)
    raise AssertionError("Typer ends the process")


def _models(context: typer.Context, incomplete: str) -> list[str]:
    """The models that are here, for `-m` and the tabulator key."""
    from toast.store import inventory

    return [name for name in inventory.names(context.obj) if name.startswith(incomplete)]


def choose(group: Group, words: list[str]) -> HelpRequested | UsageError:
    """What to raise where the first word names none of a group's commands: its help, or what is wrong."""
    word = words[0] if words else "--help"
    if word.startswith("-"):
        spoken = io.StringIO()
        with redirect_stdout(spoken), redirect_stderr(spoken), suppress(Exit, SystemExit, TyperException):
            build(group).main([word], prog_name=group.name, standalone_mode=False)
        if spoken.getvalue():
            return HelpRequested(spoken.getvalue())
    near = [SAME[word]] if SAME.get(word) in group.commands else difflib.get_close_matches(word, group.commands, 1)
    hint = f"did you mean {group.name} {near[0]}?" if near else f"one of: {', '.join(group.commands)}"
    return UsageError(f"{group.name} has no command {word!r}", hint)


def build(command: Command | Group) -> Any:
    """The command as Typer builds it from the same declarations."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, help=command.help)
    settings: Any = {"help_option_names": ["-h", "--help"], "terminal_width": 100}
    if not command.commands:
        app.command(help=command.help, epilog=EPILOG, context_settings=settings)(_signature(command))
        return typer.main.get_command(app)
    app.callback(help=command.help, epilog=EPILOG, context_settings=settings)(_signature(command))
    for name, part in command.commands.items():
        app.command(name, help=part.help, epilog=EPILOG, context_settings=settings)(_signature(part))
    return typer.main.get_command(app)


def _signature(command: Command | Group) -> Any:
    """A function with the signature that Typer expects for these parameters."""

    def declared(**values: Any) -> dict[str, Any]:
        return values

    shape: Any = declared
    parameters = [_parameter(p) for p in command.parameters]
    parameters.append(_version(command))
    shape.__signature__ = inspect.Signature(parameters)
    shape.__annotations__ = {p.name: p.annotation for p in parameters}
    shape.__name__ = command.name
    return shape


def _parameter(p: Parameter) -> inspect.Parameter:
    kind: Any = bool if p.type is bool else str  # words: `options.py` makes values of them
    annotation = list[kind] if p.many else kind
    default: Any
    shown: dict[str, Any] = {} if p.type is bool else {"metavar": p.metavar}
    if p.choices:
        shown = {"metavar": f"<{'|'.join(p.choices)}>", "autocompletion": lambda: list(p.choices)}
    if p.metavar == "MODEL":
        shown["autocompletion"] = _models
    if isinstance(p, Operand):
        default = ... if p.default is ... else None
        info = typer.Argument(default, help=p.help, show_default=False, **shown)
    else:
        default = False if p.type is bool else None
        info = typer.Option(default, *p.flags, help=_help(p), show_default=False, **shown)
    return inspect.Parameter(p.name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=annotation)


def _help(p: Parameter) -> str:
    notes = [f"${p.env}"] if p.env else []
    notes += [p.range] if p.range else []
    if p.type is not bool and p.default not in (None, [], ""):
        notes.append(f"default: {p.default}")
    return f"{p.help} [{', '.join(notes)}]" if notes else p.help


def _version(command: Command | Group) -> inspect.Parameter:
    def say(wanted: bool) -> None:  # noqa: FBT001  Typer calls it so
        if wanted:
            from toast import __version__

            print(f"{command.name} (toast {__version__})")
            raise typer.Exit()

    info = typer.Option(False, "--version", callback=say, is_eager=True, expose_value=False)
    info.help = "Print the version and exit."
    return inspect.Parameter("version", inspect.Parameter.KEYWORD_ONLY, default=info, annotation=bool)
