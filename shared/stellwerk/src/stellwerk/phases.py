"""The phases of a run as lines for people, each with the seconds it took, as they pass."""

from typing import TextIO

from stellwerk.api import RunEventView
from stellwerk.runstate import TERMINAL
from stellwerk.text import harmless

PHASES = ("preparing", "scaling", "starting", "running", "post_processing")
_ALWAYS_SHOWN = frozenset({"preparing", "scaling", "running", "post_processing"})
_PHASE_OF = {
    "NotStarted": 0,
    "Preparing": 0,
    "Queued": 1,
    "Provisioning": 1,
    "Starting": 2,
    "Running": 3,
    "Finalizing": 4,
}
_TOLD = frozenset(
    {
        "ImageBuildStarted",
        "ImageReady",
        "DatasetReady",
        "RunQueued",
        "RunProvisioning",
        "RunAssigned",
        "AttemptLost",
        "RunRetrying",
    }
)


class PhasePrinter:
    """Prints ``phase preparing: 3.2 s`` when a phase has passed. Call it with every event."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._printed: set[str] = set()
        self._last_message = ""

    def __call__(self, event: RunEventView) -> None:
        """Print what is new with this event: phases that have passed, and what happens now."""
        over = event.status in TERMINAL
        for phase in PHASES if over else PHASES[: _PHASE_OF.get(event.status, 0)]:
            expected = phase in _ALWAYS_SHOWN and event.status not in {"Failed", "Canceled"}
            if phase not in self._printed and (expected or phase in event.phases):
                self._printed.add(phase)
                seconds = event.phases.get(phase, 0.0)
                self._out.write(f"phase {phase.replace('_', '-')}: {seconds:.1f} s\n")
        if event.type in _TOLD and event.message not in {"", self._last_message}:
            self._last_message = event.message
            self._out.write(f"  {harmless(event.message)}\n")
        self._out.flush()
