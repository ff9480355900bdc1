"""Documents in columns: what was written or read lately need not be parsed again."""

from typing import Generic, TypeVar

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)


class Documents(Generic[M]):
    """Documents of one frozen model by their text; from any thread. At most ``kept`` stay."""

    def __init__(self, model: type[M], kept: int) -> None:
        self._model, self._kept = model, kept
        self._known: dict[str, M] = {}

    def read(self, text: str) -> M:
        """The document. Raises ValidationError for a text that is none."""
        found = self._known.get(text)
        if found is None:
            found = self._model.model_validate_json(text)
            self.wrote(text, found)
        return found

    def wrote(self, text: str, document: M) -> None:
        """Remember what a text says."""
        if len(self._known) >= self._kept:
            self._known.clear()
        self._known[text] = document
