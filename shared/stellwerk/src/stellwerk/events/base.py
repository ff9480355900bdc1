"""What all events share, and the registry class ↔ type ↔ subject ↔ owner.

An event is a fact in the past tense, published by the one service that owns its aggregate.
Readers ignore fields they do not know, so a later release may add some; a breaking change is a
new type. Metadata travel in CloudEvents headers (``envelope.py``), the body is the data alone.
"""

from collections.abc import Callable
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from stellwerk import subjects
from stellwerk.errors import ProtocolError

MAX_EVENT_BYTES = 256 * 1024


class Event(BaseModel):
    """Base of all events.

    ``aggregate``, ``verb`` and ``owner`` are set by :func:`event`; ``key`` names the field that
    is the aggregate's id, ``addressee`` the field that is the last subject token, if any.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    aggregate: ClassVar[str]
    verb: ClassVar[str]
    owner: ClassVar[str]
    key: ClassVar[str]
    addressee: ClassVar[str | None]

    @classmethod
    def type_name(cls) -> str:
        """CloudEvents type, for example ``stellwerk.run.assigned.v1``."""
        return f"stellwerk.{cls.aggregate}.{cls.verb}.v1"

    @property
    def aggregate_id(self) -> str:
        """Id of the aggregate this fact is about."""
        return str(getattr(self, self.key))

    def subject(self) -> str:
        """Subject this event is published on."""
        to = None if self.addressee is None else str(getattr(self, self.addressee))
        return subjects.event(self.aggregate, self.aggregate_id, self.verb, to)

    def discriminator(self) -> str:
        """What tells two facts of the same type about the same aggregate apart; '' if nothing."""
        return ""

    def event_id(self) -> str:
        """Deterministic id: the same fact has the same id, whoever publishes it again.

        Events of a run are numbered instead: ``run/<run>/<sequence>``, see ``envelope.py``.
        """
        extra = self.discriminator()
        return f"{self.aggregate}/{self.aggregate_id}/{self.verb}" + (f"/{extra}" if extra else "")

    def data(self) -> bytes:
        """The body: compact JSON by alias."""
        return self.model_dump_json(by_alias=True).encode()


E = TypeVar("E", bound=Event)

REGISTRY: dict[str, type[Event]] = {}


def event(
    *, aggregate: str, verb: str, owner: str, key: str, addressee: str | None = None
) -> Callable[[type[E]], type[E]]:
    """Class decorator: register an event with its subject and its one owner."""

    def register(cls: type[E]) -> type[E]:
        cls.aggregate, cls.verb, cls.owner = aggregate, verb, owner
        cls.key, cls.addressee = key, addressee
        if cls.type_name() in REGISTRY:
            raise ProtocolError(f"event type {cls.type_name()} is registered twice")
        REGISTRY[cls.type_name()] = cls
        return cls

    return register
