"""The two server binaries: the wheels' own, never an old one that happens to be on PATH."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from stellwerk.errors import UserError

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Binary:
    """A server binary: its file name, the variable that overrides it, its oldest version."""

    name: str
    variable: str
    floor: Version
    asks: str

    def find(self) -> str:
        """Its path. Raises UserError when it is not there."""
        given = os.environ.get(self.variable)
        beside = Path(sys.executable).parent / self.name
        found = shutil.which(given or str(beside))
        if found is None:
            where = f"{self.variable}={given}" if given else f"{self.name} is not installed"
            raise UserError(
                f"{where}: no such program. `make setup` in a checkout of Stellwerk installs it",
                code="binary.missing",
                field=self.variable,
            )
        return found

    def check(self) -> tuple[str, str]:
        """Path and version. Raises UserError when it is missing, does not run or is too old."""
        path = self.find()
        try:
            done = subprocess.run(
                [path, self.asks], capture_output=True, text=True, timeout=20, check=False
            )
            said = done.stdout + done.stderr
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
        have = parse(said)
        if have < self.floor:
            need, got = _text(self.floor), _text(have) if have else said.strip()[:200] or "nothing"
            raise UserError(
                f"{path}: version is {got}, {need} or newer is needed. "
                "`make setup` in a checkout of Stellwerk installs one that is.",
                code="binary.old",
                field=self.variable,
            )
        return path, _text(have)


NATS = Binary("nats-server", "STELLWERK_NATS_SERVER", (2, 14, 3), "--version")
WEED = Binary("weed", "STELLWERK_WEED", (4, 40), "version")


def parse(said: str) -> Version:
    """The last dotted number of a version line: ``v2.15.1``, ``8000GB 4.48``; else nothing."""
    line = next((line for line in said.splitlines() if "ersion" in line or " v" in line), "")
    found = re.findall(r"\d+(?:\.\d+)+", line)
    return tuple(map(int, found[-1].split("."))) if found else ()


def _text(version: Version) -> str:
    return ".".join(map(str, version))
