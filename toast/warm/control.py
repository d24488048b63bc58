"""`toasted`: what there is to say to a warm process, and to be one.

Knows the process by its socket alone.
"""

from __future__ import annotations

import json as json_library
import os
from time import monotonic, sleep

from toast import pipes
from toast.command import leave_directory
from toast.errors import Exit, ToastError, os_error
from toast.warm import client, place, protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.command import Call

STOPPING = 10  # seconds for which `stop` waits


def status(call: Call, *, json: bool) -> int:
    """Write what the warm process says of itself; Exit.NONE without one."""
    answer = client.control(call, "status")
    if answer is None:
        call.warn("there is no warm process")
        return Exit.NONE
    found: dict[str, Any] = json_library.loads(answer)
    pipes.write_answer(call, pipes.json_line(found) if json else "".join(_lines(found)).encode())
    return Exit.OK


def _lines(found: dict[str, Any]) -> list[str]:
    jobs = ", ".join(f"{count} {name}" for name, count in sorted(found["served"].items())) or "none"
    idle = f"leaves after {found['idle']:.0f} s without work" if found["idle"] is not None else "stays"
    lines = [
        f"pid\t{found['pid']}, for {found['uptime']:.0f} s, {idle}\n",
        f"memory\t{found['memory'] / 1e6:.0f} MB\n",
        f"jobs\t{jobs}; {found['running']} running, {found['refused']} left to their callers\n",
    ]
    return lines + [f"model\t{model}\n" for model in found["models"]]


def stop(call: Call) -> None:
    """End the warm process, if there is one, and wait until it is gone."""
    path, until = place.socket(call.env), monotonic() + STOPPING
    if client.control(call, "stop") is None:
        call.warn("there is no warm process")
        return
    while os.path.exists(path):
        if monotonic() > until:
            raise ToastError("the warm process is still at work", "it ends when its jobs do")
        sleep(0.02)


def run(call: Call, idle: str | None) -> None:
    """Be the warm process until nobody needs it."""
    from toast.warm import server

    path = place.socket(call.env)
    place.check(path)
    try:
        held = server.listen(path)
    except OSError as error:
        raise os_error(error, f"listen at {error.filename or path}") from None
    if held is None:
        call.warn("there is a warm process already")
        return
    leave_directory()
    try:
        server.Server(held[0], call.env, idle=(protocol.lasting(idle) or None) if idle else None).serve()
    finally:
        server.end(path, held[1])
