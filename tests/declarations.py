"""Every command as it is declared; importing the declarations is the start of a process, which is undone."""

import importlib
import os
import signal
import tomllib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
with open(os.path.join(ROOT, "pyproject.toml"), "rb") as _file:
    SCRIPTS = tomllib.load(_file)["project"]["scripts"]  # name -> module:function


def _declared():
    before = signal.getsignal(signal.SIGINT)
    try:
        for target in dict.fromkeys(SCRIPTS.values()):
            module, _, function = target.partition(":")
            yield getattr(importlib.import_module(module), function)
    finally:
        signal.signal(signal.SIGINT, before)


COMMANDS = {command.name: command for command in _declared()}  # groups as one
ALL = {}  # with `model pull` and the others of a group apart
for _one in COMMANDS.values():
    ALL[_one.name] = _one
    ALL.update({part.name: part for part in _one.commands.values()})
