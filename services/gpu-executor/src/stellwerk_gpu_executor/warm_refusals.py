"""Which warm processes there will not be, and why: said once, until their environment changes."""

from dataclasses import dataclass, field

import structlog

from stellwerk_gpu_executor.warm_identity import Marks, environment_of
from stellwerk_gpu_executor.warm_rules import Recipe

log = structlog.get_logger()


@dataclass
class Refusals:
    """Recipes that failed to load, and what of them is not tried again."""

    _said: dict[Recipe, tuple[Marks, str]] = field(default_factory=dict)
    _failures: dict[Recipe, int] = field(default_factory=dict)

    def of(self, recipe: Recipe) -> str | None:
        """Why there will be none, as long as the environment is the same."""
        marks, reason = self._said.get(recipe, (None, None))
        return reason if marks is not None and marks.still() else None

    def failed(self, recipe: Recipe, reason: str, tries: int) -> None:
        """It was not loaded. After so many ``tries`` in a row there will be none."""
        self._failures[recipe] = self._failures.get(recipe, 0) + 1
        if self._failures[recipe] < tries:
            return
        del self._failures[recipe]
        log.warning("no warm process", action="warm_refused", python=recipe.python, reason=reason)
        self._said[recipe] = (environment_of(recipe.python), reason)

    def loaded(self, recipe: Recipe) -> None:
        """It was loaded: earlier failures do not count."""
        self._failures.pop(recipe, None)
