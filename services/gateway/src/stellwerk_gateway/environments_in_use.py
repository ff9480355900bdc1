"""Environments that live runs use, asked of history."""

from stellwerk.api import Page, RunView
from stellwerk.runstate import TERMINAL, RunStatus
from stellwerk_gateway.platform import Platform

PAGE = 200
LIVE = [status for status in RunStatus if status not in TERMINAL]
"""In order of progress, so that a run that moves on while they are asked for is seen later."""


async def in_use(platform: Platform) -> list[str]:
    """Ids, sorted. Raises ServiceUnavailableError where history does not answer.

    Asked twice: a run may also move back meanwhile, to be tried again or since it answers again.
    """
    found: set[str] = set()
    for status in LIVE * 2:
        cursor: str | None = None
        while True:
            page = await platform.ask(
                "history", "run-list", Page[RunView], status=status, limit=PAGE, cursor=cursor
            )
            found |= {run.image.env_id for run in page.items if run.image is not None}
            cursor = page.next_cursor
            if cursor is None:
                break
    return sorted(found)
