"""Modules that are not there, as names that can be imported and refuse to be used.

Works in every Python that a run may have.
"""

from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from azureml import exceptions
from azureml._refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Callable


class RefusedModules(MetaPathFinder, Loader):
    """Finds the modules that ``reason_of`` has a reason for; their names raise ``exception``."""

    def __init__(
        self, reason_of: "Callable[[str], str | None]", exception: "type[Exception]"
    ) -> None:
        self._reason_of, self._exception = reason_of, exception

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> "ModuleSpec | None":
        del path, target
        return ModuleSpec(fullname, self, is_package=True) if self._reason_of(fullname) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Names(spec.name, self._reason_of(spec.name), self._exception)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


class _Names(ModuleType):
    """Every public name; exceptions are themselves."""

    def __init__(self, name: str, reason: "str | None", exception: "type[Exception]") -> None:
        super().__init__(name)
        self._content = {"reason": reason, "exception": exception, "__doc__": "Refused."}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(exceptions, name, None) or Refused(name, (), dict(self._content))
        setattr(self, name, value)
        return value
