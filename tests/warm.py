"""A warm process of the tests' own, and the two clients that ask it: the launcher, and Python where there is none."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from command import BIN, Result, environment, fed

from toast.command import Call
from toast.errors import ToastError
from toast.warm.client import control

MODULES = {
    "toast": "toast.cli", "tokenize": "toast.cli", "embed": "embed.cli", "index": "embed.cli", "search": "embed.cli",
    "rerank": "rerank.cli", "classify": "rerank.cli", "toasted": "toast.cli", "model": "toast.store.cli",
}  # fmt: skip


def is_launched():
    """Whether the commands are the launcher's executables."""
    with open(os.path.join(BIN, "embed"), "rb") as file:
        return file.read(2) != b"#!"


CLIENTS = ["launcher", "python"] if is_launched() else ["python"]


def words_of(client, name):
    """What starts a command as this client."""
    if client == "launcher":
        return [os.path.join(BIN, name)]
    return [sys.executable, "-P", "-c", f"from {MODULES[name]} import {name}; {name}()"]


def declared(name):
    return getattr(importlib.import_module(MODULES[name]), name)


class Warm:
    """A warm process with a socket of its own. env: what leads a command to it."""

    def __init__(self, *words, **env):
        self.folder = tempfile.mkdtemp(prefix="w", dir="/tmp")  # a socket's path is short
        self.env = {"XDG_RUNTIME_DIR": self.folder, **env}
        self.words, self.process = words, None

    def start(self):
        self.process = subprocess.Popen(
            [os.path.join(BIN, "toasted"), "run", *self.words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(self.env),
        )  # fmt: skip
        self.wait(lambda: self.status())
        return self

    def wait(self, there, seconds=30):
        until = time.monotonic() + seconds
        while not (found := there()):
            assert time.monotonic() < until, "waited in vain"
            time.sleep(0.02)
        return found

    def status(self):
        """What `toasted status --json` writes, asked from here: tests ask often. None where nobody answers."""
        try:
            answer = control(Call("toasted", environment(self.env), None), "status")
        except ToastError:
            return None
        return None if answer is None else json.loads(answer)

    def run(self, client, name, *words, stdin=None, env=None, **options):
        """A command as a client of this process."""
        line = [*words_of(client, name), *words]
        env = environment({**self.env, **(env or {})})
        ran = subprocess.run(line, capture_output=True, env=env, timeout=120, **fed(name, stdin), **options)
        return Result([name, *words], ran.returncode, ran.stdout, ran.stderr)

    def popen(self, client, name, *words, env=None, **options):
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        env = environment({**self.env, **(env or {})})
        return subprocess.Popen([*words_of(client, name), *words], env=env, **streams | options)

    def end(self):
        if self.process:
            self.process.terminate()
            self.process.communicate(timeout=30)
        shutil.rmtree(self.folder)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        self.process = None
