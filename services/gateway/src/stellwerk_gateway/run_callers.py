"""Which run a run token stands for, and whether that run still lives.

The signature and the end of its time are in the token; whether the attempt is still the run's
present one is asked of history, at most every few seconds.
"""

from collections import OrderedDict

from stellwerk.api import RunView
from stellwerk.errors import NotFoundError
from stellwerk.runstate import TERMINAL
from stellwerk_gateway.auth import RunCaller
from stellwerk_gateway.platform import Platform
from stellwerk_kit.run_tokens import RunClaims, read

KNOWN_FOR_S = 2.0
KEPT = 4096
FIRST_WAIT_S = 2.0


class RunCallers:
    """Reads run tokens; without a key there are none."""

    def __init__(self, platform: Platform, key: bytes | None) -> None:
        self._platform, self._key = platform, key
        self._alive: OrderedDict[RunClaims, float] = OrderedDict()

    async def find(self, token: bytes) -> RunCaller | None:
        """Whose token it is; None where it is nobody's (any more)."""
        if self._key is None:
            return None
        now = self._platform.clock.now().timestamp()
        claims = read(self._key, token.decode("latin-1"), now)
        if claims is None or claims.workspace != self._platform.settings.workspace:
            return None
        if not await self._lives(claims, now):
            return None
        return RunCaller(claims.run_id)

    async def _lives(self, claims: RunClaims, now: float) -> bool:
        if now < self._alive.get(claims, 0.0):
            return True
        try:
            run = await self._platform.ask(
                "history", "run-get", RunView, run_id=claims.run_id, wait_s=FIRST_WAIT_S
            )
        except NotFoundError:
            return False
        self._alive.pop(claims, None)
        if not _current(run, claims, now - self._platform.settings.run_token_grace_s):
            return False
        self._alive[claims] = now + KNOWN_FOR_S
        while len(self._alive) > KEPT:
            self._alive.popitem(last=False)
        return True


def _current(run: RunView, claims: RunClaims, ended_before: float) -> bool:
    """Whether the attempt may still speak: it is not replaced, and its run not long over."""
    if run.attempt > claims.attempt:
        return False
    if run.status not in TERMINAL:
        return True
    return run.ended_at is not None and run.ended_at.timestamp() > ended_before
