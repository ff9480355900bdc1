"""Leases of live attempts, in memory only: after a restart each has one full term of grace.

The store says which attempts are live; this module says until when. An attempt whose lease has
expired is condemned at once, so that no renewal can slip in before the loss is committed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

Key = tuple[str, int]
"""Run id and attempt."""


@dataclass
class Leases:
    """``term_s`` is the length of a lease in service seconds."""

    term_s: float
    _until: dict[Key, float] = field(default_factory=dict)
    _condemned: set[Key] = field(default_factory=set)

    def renew(self, key: Key, now: float) -> bool:
        """A live attempt was heard of; False when its lease has expired already."""
        if key in self._condemned:
            return False
        self._until[key] = now + self.term_s
        return True

    def grace(self, now: float) -> None:
        """Nobody could renew for a while: every lease begins anew."""
        self._until = dict.fromkeys(self._until, now + self.term_s)

    def expired(self, live: Iterable[Key], now: float) -> list[Key]:
        """Forget what is not live, begin leases of what is new, condemn what has expired."""
        current = set(live)
        self._until = {key: self._until.get(key, now + self.term_s) for key in current}
        self._condemned = {
            key for key in current if key in self._condemned or self._until[key] <= now
        }
        return sorted(self._condemned)
