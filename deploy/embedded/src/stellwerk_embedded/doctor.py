"""``stellwerk doctor``: what was found on this machine, and what to do about it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stellwerk.errors import StellwerkError
from stellwerk_embedded.layout import Layout

State = Literal["ok", "warning", "problem"]
MARKS = {"ok": "ok  ", "warning": "warn", "problem": "FAIL"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result; ``fix`` says what to do and is empty when all is well."""

    name: str
    state: State
    found: str
    fix: str = ""

    @property
    def mark(self) -> str:
        """State in four letters."""
        return MARKS[self.state]

    def content(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


Check = Callable[[Layout], Finding]


def judge(name: str, found: str, fix: str, *, ok: bool, otherwise: State = "problem") -> Finding:
    """All well, or ``otherwise`` with what to do."""
    return Finding(name, "ok", found) if ok else Finding(name, otherwise, found, fix)


def examine(layout: Layout) -> list[Finding]:
    """All checks, in the order of their importance to a newcomer; none of them changes anything."""
    from stellwerk_embedded import checks_machine, checks_parts  # noqa: PLC0415 - they import us

    return [_safely(check, layout) for check in (*checks_parts.CHECKS, *checks_machine.CHECKS)]


def _safely(check: Check, layout: Layout) -> Finding:
    """A check that cannot be made is a finding too."""
    name = check.__name__.replace("_", " ")
    try:
        return check(layout)
    except StellwerkError as error:
        what, _, todo = error.message.rpartition(". ")
        return Finding(name, "problem", what or error.message, todo)
    except OSError as error:
        return Finding(name, "warning", f"cannot be checked: {error}", "see the message")
