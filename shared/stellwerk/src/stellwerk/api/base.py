"""What all bodies are made from."""

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

T = TypeVar("T")
Description = Annotated[str, StringConstraints(max_length=10_000)]
Count = Annotated[int, Field(ge=0)]


class View(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Page(View, Generic[T]):
    """One page; pass ``next_cursor`` as ``cursor`` for the next, None at the end."""

    items: tuple[T, ...]
    next_cursor: str | None = None


class Problem(View):
    """RFC 9457 problem+json; ``code`` is stable."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None
    retry_after_s: float | None = None
