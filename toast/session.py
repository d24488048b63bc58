"""Conversations that go on from process to process: a plain JSONL file of messages for each.

A person can read and edit the file: {"role", "content"} on a line. Knows no model.
"""

import json
import os

from toast import pipes, store
from toast.errors import BadInput, UsageError, os_error


class Session:
    """The conversation called `name`."""

    def __init__(self, call, name: str):
        if not name or name.startswith(".") or "/" in name or "\0" in name or len(os.fsencode(name)) > 200:
            raise UsageError(f"--session {name!r} is not a plain name")
        self.path = os.path.join(store.home(call), "sessions", f"{name}.jsonl")

    def read(self) -> list[dict]:
        """The messages so far; BadInput when somebody broke the file."""
        try:
            with open(self.path, encoding="utf-8") as file:
                messages = [json.loads(line) for line in file if line.strip()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise os_error(error, f"read {self.path}") from None
        except ValueError:
            messages = [None]
        for message in messages:
            if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
                raise BadInput(f'{self.path}: every line must be {{"role": "...", "content": "..."}}')
        return messages

    def add(self, messages: list[dict]) -> None:
        """Append messages, in one write, so that a killed process leaves whole lines."""
        try:
            os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise os_error(error, f"write {self.path}") from None
        try:
            pipes.write_all(fd, b"".join(map(pipes.json_line, messages)), self.path)
            os.fsync(fd)
        finally:
            os.close(fd)

    def forget(self) -> None:
        """Delete the conversation; one that is not there is forgotten already."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise os_error(error, f"delete {self.path}") from None
