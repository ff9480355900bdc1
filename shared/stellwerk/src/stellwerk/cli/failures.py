"""Errors as messages on stderr and exit codes; ``docs/howto/exit-codes.md`` lists them."""

import os
import sys

import click

from stellwerk.errors import (
    AuthenticationError,
    ComputeTargetException,
    ConflictError,
    NotFoundError,
    RunFailedError,
    ServiceUnavailableError,
    StellwerkError,
    StreamingInterruptedError,
)
from stellwerk.text import harmless

OK, ERROR, USAGE, AUTHENTICATION, UNREACHABLE, CONFLICT, NOT_FOUND = range(7)
RUN_FAILED, RUN_CANCELED, RERUN_DIFFERS, INTERRUPTED = 100, 103, 104, 130

_CODES: tuple[tuple[type[StellwerkError], int], ...] = (
    (AuthenticationError, AUTHENTICATION),
    (ServiceUnavailableError, UNREACHABLE),
    (ConflictError, CONFLICT),
    (NotFoundError, NOT_FOUND),
    (RunFailedError, RUN_FAILED),
    (StreamingInterruptedError, INTERRUPTED),
)


def exit_code(error: BaseException) -> int:
    """Print what went wrong and return the exit code. Unexpected errors are raised again."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        _say("Interrupted.")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # The reader of our output left; Python must not fail again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    if isinstance(error, StellwerkError):
        _say(f"Error: {error.message}")
        return code_of(error)
    if isinstance(error, OSError) and error.filename is not None:
        _say(f"Error: {os.fsdecode(error.filename)}: {error.strerror}")
        return ERROR
    raise error


def code_of(error: StellwerkError) -> int:
    """The exit code of one of our errors."""
    if error.code == "workspace.not_found":
        return UNREACHABLE
    if isinstance(error, ComputeTargetException) and isinstance(error.__cause__, StellwerkError):
        return code_of(error.__cause__)  # v1's one exception for many reasons
    return next((code for kind, code in _CODES if isinstance(error, kind)), ERROR)


def code_of_status(status: str) -> int:
    """The exit code of a run that was waited for."""
    return {"Failed": RUN_FAILED, "Canceled": RUN_CANCELED}.get(status, OK)


def _say(text: str) -> None:
    sys.stderr.write(harmless(text) + "\n")
    sys.stderr.flush()
