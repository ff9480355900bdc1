"""Packages for a Python that is not on this machine: locked and downloaded here, used elsewhere."""

from dataclasses import dataclass
from pathlib import Path

from stellwerk_environment_build import inspection, uv_command
from stellwerk_environment_build.cache import LOCK
from stellwerk_environment_build.construction import Construction
from stellwerk_environment_build.inspection import Lock


@dataclass(frozen=True)
class ApartConstruction(Construction):
    """The phases for Python ``version``; the result has no interpreter, only ``lib`` and ``bin``.

    ``interpreter`` is any of this machine, for the installer alone.
    """

    version: str = ""

    async def create(self, lock: Lock) -> None:
        """The folder that packages go into."""
        del lock
        minor = ".".join(self.version.split(".")[:2])
        (self.target / "lib" / f"python{minor}" / "site-packages").mkdir(parents=True)

    async def install(self, lock: Lock) -> None:
        """Download and lay aside what the lock names. Raises BuildFailedError."""
        await super().install(lock)
        site = inspection.site_packages(self.target)
        inspection.move_scripts(site / "bin", self.target / "bin")

    def _resolve_command(self, wanted: Path, lock: Path) -> list[str]:
        return uv_command.resolve_command(
            wanted, lock, self.interpreter, self.index, self._pins(), self.version
        )

    def _install_command(self) -> list[str]:
        return uv_command.lay_aside_command(
            self.target / LOCK,
            self.interpreter,
            self.index,
            inspection.site_packages(self.target),
            self.version,
        )
