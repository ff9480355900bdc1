"""Frameworks that are loaded already and come into sight when a script imports them.

Until then `sys.modules` is as in an interpreter that has not imported them; then what they printed
while they were loaded is printed again, at the place where an import would have printed it.
"""

from __future__ import annotations

import os
import sys
import types
import warnings
from importlib.machinery import ModuleSpec

from stellwerk_shim.marks import FRAMEWORKS

READ_ONCE = ("KERAS_BACKEND", "KERAS_HOME", "TF_USE_LEGACY_KERAS", "TF_ENABLE_ONEDNN_OPTS", "JAX_")
"""Variables that frameworks read when they are imported and never again, or how those begin."""


TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from typing import TypeAlias

    from stellwerk_shim.restart import Beginning

    Said: TypeAlias = "bytes | tuple[str, type[Warning], str, int]"


class Words:
    """What is printed while something is loaded: texts and Python's warnings, in order."""

    def __init__(self) -> None:
        self._said: list[Said] = []
        self._output = os.open("/proc/self/fd/2", os.O_RDONLY | os.O_CLOEXEC)
        self._end = os.fstat(self._output).st_size
        self._show = warnings.showwarning
        warnings.showwarning = self._warned  # type: ignore[assignment]

    def take(self) -> list[Said]:
        """What was said since the last call."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        size = os.fstat(self._output).st_size
        if size > self._end:
            self._said.append(os.pread(self._output, size - self._end, self._end))
            self._end = size
        said, self._said = self._said, []
        return said

    def close(self) -> None:
        """Listen no longer."""
        warnings.showwarning = self._show
        os.close(self._output)

    def _warned(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        *_: object,
    ) -> None:
        self._said = [*self.take(), (str(message), category, filename, lineno)]


class Package:
    """A package and what was said while it was loaded."""

    def __init__(self, name: str, said: list[Said]) -> None:
        self.name, self.said = name, said
        self.modules = {each: sys.modules[each] for each in sys.modules if _top(each) == name}
        self.top = self.modules[name]
        self.spec = self.top.__spec__
        self.uses = {
            _top(str(_names(value).get("__name__")))
            for module in self.modules.values()
            for value in list(_names(module).values())
            if issubclass(type(value), types.ModuleType)
        }
        """Top-level names of the packages whose modules its own ones hold."""

    def say(self) -> None:
        """Say again what was said; warnings go through the filters that are in force now."""
        for each in self.said:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            if isinstance(each, bytes):
                os.write(2, each)
            else:
                warnings.warn_explicit(*each)


def hide(said: dict[str, list[Said]]) -> None:
    """Take the frameworks out of sight until they are imported.

    `said`: top-level names in the order of loading, with what was said meanwhile.
    """
    names = [name for name in said if name in _HIDDEN and name in sys.modules]
    packages = [Package(name, said[name]) for name in names]
    for package in packages:
        for each in package.modules:
            del sys.modules[each]
    sys.meta_path.insert(0, Latent(packages))


class Latent:
    """A finder that has frameworks among the loaded modules, until each was imported once."""

    def __init__(self, packages: list[Package]) -> None:
        self._packages = {package.name: package for package in packages}
        self._environment = _read_once()
        self.beginning: Beginning | None = None
        """Set where the script may begin again in a new interpreter."""

    def __bool__(self) -> bool:
        """Whether there is a framework that has not come into sight."""
        return bool(self._packages)

    def find_spec(
        self, name: str, _path: object = None, _target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec whose module is there already."""
        package = self._packages.get(name)
        if package is None:
            return None
        own = package.spec
        spec = ModuleSpec(name, self, origin=own and own.origin)  # type: ignore[arg-type]
        spec.submodule_search_locations = None if own is None else own.submodule_search_locations
        return spec

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        """The loaded module. Where the script would have got another it begins again, cold.

        Raises ImportError where that is too late.
        """
        now = _read_once()
        names = sorted(self._environment.keys() | now.keys())
        changed = [name for name in names if self._environment.get(name) != now.get(name)]
        if changed:
            what = f"{', '.join(changed)} was changed before {spec.name} was imported"
            if self.beginning is not None:
                self.beginning.again(f"{what}, it began again")
            raise ImportError(
                f"{what}, but the run "
                f"began in a process that has {spec.name} loaded: set it in the run's environment "
                "variables, or submit the run with warm='never'",
                name=spec.name,
            )
        return self._packages[spec.name].top

    def exec_module(self, module: types.ModuleType) -> None:
        """Bring the package into sight, and those that its import would have imported."""
        if self.beginning is not None:
            self.beginning.over()
        self._show(module.__name__)
        if not self:
            sys.meta_path.remove(self)

    def _show(self, name: str) -> None:
        package = self._packages.pop(name)
        for other in [each for each in self._packages if each in package.uses]:
            if other in self._packages:
                self._show(other)
        package.top.__spec__ = package.spec
        sys.modules.update(package.modules)
        package.say()


def _read_once() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(READ_ONCE)}


def _names(thing: object) -> dict[str, object]:
    """An object's own names, without waking modules that load themselves when they are used."""
    try:
        return dict(object.__getattribute__(thing, "__dict__"))
    except AttributeError:
        return {}


def _top(name: str) -> str:
    return name.partition(".")[0]


_HIDDEN = frozenset(_top(name) for name in FRAMEWORKS)
