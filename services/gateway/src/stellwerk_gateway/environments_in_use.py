"""Environments that live runs use, asked of history."""

from stellwerk.api import Page, RunView
from stellwerk.runstate import TERMINAL, RunStatus
from stellwerk_gateway.platform import Platform

PAGE = 200


async def in_use(platform: Platform) -> list[str]:
    """Ids, sorted. Raises ServiceUnavailableError where history does not answer."""
    found: set[str] = set()
    for status in sorted(set(RunStatus) - TERMINAL):
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
