"""The inputs of the run around this process, as scripts read them."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from stellwerk.dataset import Dataset, FileDataset, TabularDataset

if TYPE_CHECKING:
    from stellwerk.workspace import Workspace

RunInput = str | FileDataset | TabularDataset


class RunInputs(Mapping[str, RunInput]):
    """Input name → path (mount, download), or the dataset itself (direct), found when asked for.

    ``values`` are path or id by name, ``direct`` the names of those that are ids.
    """

    def __init__(
        self,
        values: Mapping[str, str],
        direct: frozenset[str],
        workspace: "Callable[[], Workspace]",
    ) -> None:
        self._values, self._direct, self._workspace = dict(values), direct, workspace

    def __getitem__(self, name: str) -> RunInput:
        value = self._values[name]
        return Dataset.get_by_id(self._workspace(), value) if name in self._direct else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"RunInputs({self._values!r})"
