"""How far a script has got, from the records its process sends (`stellwerk_shim.marks`). Pure.

All times are of this machine's monotonic clock, which the run's process shares.
"""

import math
from collections.abc import Mapping
from typing import Any

KIND = "mark"
COLD_CHARACTERS = 500
REPORTS = 8
"""Each is an event that is kept: a script that sends marks without end must not flood them."""


class Progress:
    """The steps of one attempt after its program was loaded at ``began``."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._pid: object = None
        self._told: dict[str, float] = {}
        self._known: dict[str, float] = {}
        self._reports = 0
        self._cold: str | None = None
        self._cold_told = False

    def take(self, record: Mapping[str, Any], now: float) -> None:
        """Learn from a record. One of another process, or with an impossible time, says nothing.

        Seconds of ``imports`` count from the start of the program, those of ``first_step`` from
        the end of the imports.
        """
        self._pid = self._pid or record.get("pid")
        if record.get("pid") != self._pid or "first_step" in self._known:
            return
        cold = record.get("cold")
        if isinstance(cold, str) and cold and self._cold is None:
            self._cold = cold[:COLD_CHARACTERS]
            return
        steps: dict[str, float] = {}
        last = self._began
        for name in ("imports", "first_step"):
            moment = record.get(name)
            if not isinstance(moment, float) or not math.isfinite(moment):
                continue
            if not last <= moment <= now:
                return
            steps[name], last = round(moment - last, 6), moment
        self._known = steps

    def cold_reason(self) -> str | None:
        """Why it began again in a new interpreter, once; None if it did not."""
        reason = None if self._cold_told else self._cold
        self._cold_told = self._cold is not None
        return reason

    def news(self) -> dict[str, float]:
        """What was learned since the last call, {} if nothing; at most 8 times.

        The last time is for the first step, which is told once and with which all is known.
        """
        last = "first_step" in self._known
        if self._known == self._told or (self._reports >= REPORTS - 1 and not last):
            return {}
        self._reports += 1
        self._told = self._known
        return dict(self._known)
