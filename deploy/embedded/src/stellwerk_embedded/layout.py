"""Where everything of one embedded stack lies: one data folder, private to its owner."""

import os
from dataclasses import dataclass
from pathlib import Path

SERVICES = (
    "gateway",
    "scheduler",
    "environment-build",
    "dataset",
    "gpu-executor",
    "history",
    "model-registry",
)


def default_home() -> Path:
    """``$STELLWERK_HOME``, or ``~/.stellwerk``."""
    return Path(os.environ.get("STELLWERK_HOME") or Path.home() / ".stellwerk")


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below the data folder; docs/architecture.md section 6 lists them."""

    home: Path

    @property
    def secrets(self) -> Path:
        """Credentials, 0700."""
        return self.home / "secrets"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.home / "logs"

    @property
    def client_file(self) -> Path:
        """What clients read."""
        return self.home / "client.json"

    @property
    def state_file(self) -> Path:
        """Processes and ports, written by the supervisor."""
        return self.home / "supervisor.json"

    @property
    def lock_file(self) -> Path:
        """Held by the supervisor while it lives."""
        return self.home / "supervisor.lock"

    def create(self) -> None:
        """Make the folders."""
        for path in (self.home, self.secrets, self.logs, self.home / "nats", self.home / "s3"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Write a file only its owner may read, atomically."""
    temporary = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
    temporary.replace(path)
