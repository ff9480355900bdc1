"""The settings in force: those of the running platform, else what a start now would give it.

``stellwerk up`` may have been called in another shell, with another proxy or another index.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stellwerk_embedded import environment, state
from stellwerk_embedded.layout import Layout

LIMIT_S = 60.0
_OF_THE_INDEX = ("UV_", "PIP_", "SSL_")


@dataclass(frozen=True, slots=True)
class InForce:
    """The environment of a service's process, ``running`` or as it would be started."""

    environment: dict[str, str]
    running: bool

    def ask(self, module: str) -> dict[str, Any]:
        """What a module of a service reports in it, as JSON. Raises OSError when it cannot."""
        try:
            done = subprocess.run(
                [sys.executable, "-m", module],
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"no answer within {LIMIT_S:g} s") from error
        if done.returncode:
            raise OSError(done.stderr.strip()[-300:])
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def other_than_here(self) -> list[str]:
        """Names of variables about the index and its way that this shell has otherwise."""
        here = environment.base()
        return sorted(
            name
            for name in here.keys() | self.environment.keys()
            if name.startswith(_OF_THE_INDEX) or name.lower().endswith("_proxy")
            if here.get(name) != self.environment.get(name)
        )


def of(layout: Layout, service: str) -> InForce:
    """The settings of one service."""
    content = state.read(layout) or {}
    pid = content.get("processes", {}).get(service, {}).get("pid")
    try:
        pairs = os.fsdecode(Path(f"/proc/{pid}/environ").read_bytes()).split("\0") if pid else []
    except OSError:  # it has just ended
        pairs = []
    if not pairs:
        return InForce(environment.base(), running=False)
    return InForce(dict(pair.split("=", 1) for pair in pairs if "=" in pair), running=True)
