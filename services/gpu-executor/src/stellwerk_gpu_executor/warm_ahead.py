"""Environments whose frameworks are loaded when the node starts, before any run asks for them."""

from dataclasses import dataclass, field

import structlog

from stellwerk.api import BuildView, EnvironmentView
from stellwerk.errors import ServiceUnavailableError, StellwerkError
from stellwerk_gpu_executor.prepare import Preparer
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_kit.bus import Bus

BUILDER = "environment-build"

log = structlog.get_logger()


@dataclass
class WarmAhead:
    """``names`` of registered environments, curated ones among them."""

    names: tuple[str, ...]
    bus: Bus
    pool: WarmPool
    preparer: Preparer
    _done: set[str] = field(default_factory=set)

    async def sweep(self) -> None:
        """Have each built, then loaded; what fails is told once and left to the runs."""
        for name in self.names:
            if name in self._done:
                continue
            try:
                ready = await self._load(name)
            except ServiceUnavailableError:
                return
            except StellwerkError as error:
                log.warning("not warm", action="warm_ahead", environment=name, error=error.message)
                ready = True
            if ready:
                self._done.add(name)

    async def _load(self, name: str) -> bool:
        asked = {"name": name}
        view = await self.bus.call(BUILDER, "environment-get", asked, EnvironmentView)
        build = await self.bus.call(BUILDER, "build-start", asked, BuildView)
        if build.state == "failed":
            raise StellwerkError(f"it cannot be built: {build.message}")
        if build.state != "ready" or view.definition.user_managed:
            return view.definition.user_managed
        python, env = self.preparer.early_environment(view.env_id)
        variables = view.definition.environment_variables
        env |= variables
        recipe = recipe_of(python, env)
        if reason := self.pool.not_seen(recipe, variables, env):
            raise StellwerkError(reason)
        self.pool.want(recipe)
        return True
