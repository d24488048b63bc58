"""Calling off what a thread does for somebody else: the loops ask here, between two steps, whether it is still wanted.

A process that was started for a command gets a signal instead; there nothing is ever called off. Between steps, not
anywhere: what a step has opened would stay open. Standard library alone.
"""

from __future__ import annotations

from _thread import _local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Job(Protocol):
        """What is asked of whoever works for somebody: to raise Cancelled, once, when it is not wanted any more."""

        def check(self) -> None: ...


class Cancelled(BaseException):
    """Whoever asked is gone, or does not want the answer any more: unwind, clean up."""


class _Thread(_local):
    job: Job | None = None


here = _Thread()  # job: what this thread is at


def checkpoint() -> None:
    """Cancelled where nobody wants what this thread does any more; called at each step of what takes time."""
    if here.job is not None:
        here.job.check()
