"""Which conda channels there are, and whether those that a definition names can be reached.

``auto`` asks when a definition first needs a channel and remembers the answer: one that answered
counts as there until the service ends, one that did not is asked again after five minutes. What
an environment is must not depend on the minute, and nobody's server is asked without a reason.
"""

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stellwerk.conda_part import DEFAULT_CHANNEL, KnownChannels, choose_channels
from stellwerk.environment_spec import EnvironmentDefinition, InvalidEnvironment, wants_conda
from stellwerk_environment_build.process import Step, StepTimeoutError, run_step
from stellwerk_kit.clock import Clock

Mode = Literal["auto", "channels", "index"]
PROBE_LIMIT_S = 10.0
ASK_AGAIN_S = 300.0


@dataclass(frozen=True)
class ChannelSettings:
    """``addresses``: channels that do not lie under ``alias``, which None leaves to conda."""

    mode: Mode = "index"
    addresses: Mapping[str, str] = field(default_factory=dict)
    alias: str | None = None


def worker_command(verb: str, request: Path, answer: Path) -> list[str]:
    """Command line of the process that calls the solver."""
    module = "stellwerk_environment_build.conda_worker"
    return [sys.executable, "-I", "-m", module, verb, str(request), str(answer)]


class CondaChannels:
    """The channels as the operator set them; ``cache`` is the folder of the solver's files."""

    def __init__(
        self, settings: ChannelSettings, cache: Path, environ: Mapping[str, str], clock: Clock
    ) -> None:
        self.settings, self.cache = settings, cache
        self._environ, self._clock = environ, clock
        self._known = KnownChannels(settings.addresses)
        self._answered: dict[str, bool] = {}
        self._asked: dict[str, float] = {}
        self._looking = asyncio.Lock()

    def known(self, definition: EnvironmentDefinition) -> KnownChannels | None:
        """The channels; None where the package index has to stand in for them."""
        if self.settings.mode == "index":
            return None
        if self.settings.mode == "channels":
            return self._known
        reached = any(self._answered.get(name) for name in self._names(definition))
        return self._known if reached else None

    async def look(self, definition: EnvironmentDefinition) -> None:
        """Find out whether the channels that ``definition`` needs can be reached."""
        if self.settings.mode != "auto" or not wants_conda(definition):
            return
        names = self._names(definition)
        async with self._looking:  # who comes meanwhile hears the same answer
            await self._ask(names)

    async def _ask(self, names: tuple[str, ...]) -> None:
        if any(self._answered.get(name) for name in names):
            return
        now = self._clock.monotonic()
        due = [name for name in names if now - self._asked.get(name, -ASK_AGAIN_S) >= ASK_AGAIN_S]
        if due:
            answering = await self._probe(tuple(due))
            for name in due:
                self._answered[name], self._asked[name] = name in answering, now

    def _names(self, definition: EnvironmentDefinition) -> tuple[str, ...]:
        try:
            return choose_channels(definition.channels, self._known)[0]
        except InvalidEnvironment:  # said when the definition is read, if there is any channel
            return (DEFAULT_CHANNEL,)

    async def _probe(self, names: tuple[str, ...]) -> tuple[str, ...]:
        from stellwerk_environment_build.conda_request import (  # noqa: PLC0415 - rarely needed
            Answer,
            Request,
        )

        self.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache, prefix="probe-") as made:
            folder = Path(made)
            request = Request(
                channels=names,
                addresses=dict(self.settings.addresses),
                alias=self.settings.alias,
                cache=self.cache,
            )
            (folder / "request").write_text(request.model_dump_json())
            step = Step(
                argv=worker_command("probe", folder / "request", folder / "answer"),
                environ=self._environ,
                folder=folder,
                limit_s=PROBE_LIMIT_S,
                silence_s=PROBE_LIMIT_S,
                pid_file=folder / "process",
            )
            try:
                await run_step(step, _ignore, _silent)
                answer = Answer.model_validate_json((folder / "answer").read_bytes())
            except (StepTimeoutError, OSError, ValueError):
                return ()
        return answer.answering


async def _ignore(_line: str) -> None:
    pass


async def _silent() -> None:
    pass
