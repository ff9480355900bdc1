"""Telemetry, of which there is none."""

import logging

__all__ = ["set_diagnostics_collection"]


def set_diagnostics_collection(
    send_diagnostics: bool = True, verbosity: int = logging.DEBUG, reason: str = ""
) -> None:
    """Accepted, and says that nothing is sent."""
    del verbosity, reason
    asked = "on" if send_diagnostics else "off"
    print(f"Diagnostics collection asked {asked}: Stellwerk collects and sends nothing.")  # noqa: T201 - what the user asked for is answered
