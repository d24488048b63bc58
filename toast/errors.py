"""What can go wrong, in the user's words, and the exit statuses.

Raised by the library; only command.py prints them and ends the process.
"""

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    NONE = 1
    ERROR = 2
    CUT = 3


class ToastError(Exception):
    """One line for the user, with an optional hint: what to type next."""

    def __init__(self, message, hint=""):
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self):
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(ToastError):
    pass


class ModelNotFound(ToastError):
    pass


class BadModel(ToastError):
    pass


class BadInput(ToastError):
    pass
