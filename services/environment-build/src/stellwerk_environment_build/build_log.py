"""The log of one build: lines for people, without secrets."""

from collections.abc import Awaitable, Callable

from stellwerk_environment_build.failures import redact

Sink = Callable[[str], Awaitable[None] | None]


class BuildLog:
    """Writes lines to ``sink``, which may be a plain function or a coroutine function."""

    def __init__(self, sink: Sink, secrets: tuple[str, ...] = ()) -> None:
        self._sink = sink
        self._secrets = secrets

    async def line(self, text: str) -> None:
        """One line, without its end."""
        pending = self._sink(redact(text, self._secrets))
        if pending is not None:
            await pending


def human_bytes(count: float) -> str:
    """For example ``2.1 GB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
