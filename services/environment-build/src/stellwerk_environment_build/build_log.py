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
