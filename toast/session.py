"""Conversations that go on from process to process: a plain JSONL file of messages for each.

A person can read and edit the file: {"role", "content"} on a line. Knows no model.
"""

from __future__ import annotations

import os

from toast import files, json_text, locks, pipes, store
from toast.errors import BadInput, UsageError, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.command import Call

    Messages = list[dict[str, Any]]  # {"role", "content"}


class Session:
    """The conversation called `name`."""

    def __init__(self, call: Call, name: str) -> None:
        if not name or name.startswith(".") or "/" in name or "\0" in name or len(os.fsencode(name)) > 200:
            raise UsageError(f"--session {name!r} is not a plain name")
        self.name, self.call = name, call
        self.path = os.path.join(store.home(call), "sessions", f"{name}.jsonl")

    def read(self, system: str = "") -> Messages:
        """The messages so far; BadInput when somebody broke the file.

        system: what was asked for now, which cannot differ from what the conversation began with."""
        try:
            lines = files.read(self.path).split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise os_error(error, f"read {self.path}") from None
        messages = [self._message(line, n) for n, line in enumerate(lines, 1) if line.strip()]
        if system and messages and messages[0] != {"role": "system", "content": system}:
            raise UsageError(f"session {self.name} began with another system prompt", f"leave -s out, or {self.anew}")
        return messages

    def _message(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            message = json_text.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            wanted = 'every line must be {"role": "...", "content": "..."}'
            raise BadInput(f"{self.path}, line {number}: {wanted}", f"edit it, or {self.anew}")
        return {name: pipes.clean(value) if isinstance(value, str) else value for name, value in message.items()}

    @property
    def anew(self) -> str:
        """What to type to be rid of the conversation."""
        return f"toast --session {self.name} --forget"

    def add(self, messages: Messages) -> None:
        """Add messages; the file is replaced whole, by one process at a time."""
        path = os.path.realpath(self.path)
        folder = os.path.dirname(path)
        pipes.commit(self.call)
        try:
            os.makedirs(folder, 0o700, exist_ok=True)
            turn = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                locks.lock(turn, lambda: None)
                said = files.read(path) if os.path.lexists(path) else b""
                begun = bool(said) and not said.endswith(b"\n")  # an editor left the last line open
                files.replace(path, [said, b"\n" * begun, *map(pipes.json_line, messages)], mode=0o600)
            finally:
                os.close(turn)
        except OSError as error:
            raise os_error(error, f"write {self.path}") from None

    def forget(self) -> None:
        """Delete the conversation; one that is not there is forgotten already."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise os_error(error, f"delete {self.path}") from None
