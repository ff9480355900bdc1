"""Waiting for a condition, never for a time."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def wait_until(
    predicate: Callable[[], T | Awaitable[T]], deadline_s: float = 10.0, every_s: float = 0.02
) -> T:
    """The first true value of ``predicate`` (plain or async).

    Raises AssertionError with the last value after ``deadline_s`` seconds.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if loop.time() > end:
            raise AssertionError(
                f"still {value!r} after {deadline_s} s: {inspect.getsource(predicate).strip()}"
            )
        await asyncio.sleep(every_s)
