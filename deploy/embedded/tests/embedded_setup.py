"""A prepared data folder, shared by the tests of this folder."""

import subprocess
from dataclasses import dataclass

from stellwerk_embedded.layout import Layout
from stellwerk_embedded.processes import ProcessSpec, specs


@dataclass
class Prepared:
    """A folder as ``stellwerk up`` leaves it for its supervisor."""

    layout: Layout
    ports: dict[str, int]

    def spec(self, name: str) -> ProcessSpec:
        return next(spec for spec in specs(self.layout, self.ports) if spec.name == name)

    def run(self, name: str) -> subprocess.Popen[bytes]:
        """Start one of the servers exactly as the supervisor does."""
        spec = self.spec(name)
        with self.layout.log(name).open("ab") as log:
            return subprocess.Popen(
                spec.command,
                env=spec.environment,
                cwd=spec.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
