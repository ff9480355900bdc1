"""Where everything of one embedded stack lies: one data folder, private to its owner."""

import os
from dataclasses import dataclass
from pathlib import Path

from stellwerk.config import SUPERVISOR_LOCK

SERVICES = (
    "gateway",
    "scheduler",
    "environment-build",
    "dataset",
    "gpu-executor",
    "history",
    "model-registry",
    "keyvault",
)
EXECUTOR_ID = "local"
LONGEST_SOCKET_PATH = 107
"""What Linux allows for the path of a Unix socket, in bytes."""


def default_home() -> Path:
    """``$STELLWERK_HOME``, or ``~/.stellwerk``."""
    return Path(os.environ.get("STELLWERK_HOME") or Path.home() / ".stellwerk")


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below the data folder; docs/architecture.md section 6 lists them."""

    home: Path

    @classmethod
    def of(cls, data: Path | None) -> "Layout":
        """The layout of ``--data``, or of the default folder; always an absolute path."""
        return cls((data or default_home()).expanduser().absolute())

    @property
    def secrets(self) -> Path:
        """Credentials, 0700."""
        return self.home / "secrets"

    @property
    def run_token_key(self) -> Path:
        """Signs the tokens of runs: gpu-executor and gateway read it."""
        return self.secrets / "run-tokens.key"

    @property
    def nats(self) -> Path:
        """Configuration and data of the broker."""
        return self.home / "nats"

    @property
    def s3(self) -> Path:
        """Configuration and data of the object store."""
        return self.home / "s3"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.home / "logs"

    @property
    def environments(self) -> Path:
        """Environment cache: environment-build writes, gpu-executor reads."""
        return self.home / "environments"

    @property
    def executor(self) -> Path:
        """Node cache and attempt folders."""
        return self.home / "executor"

    @property
    def client_file(self) -> Path:
        """What clients read."""
        return self.home / "client.json"

    @property
    def ports_file(self) -> Path:
        """The base port of the last start."""
        return self.home / "ports.json"

    @property
    def state_file(self) -> Path:
        """Processes and ports, written by the supervisor."""
        return self.home / "supervisor.json"

    @property
    def lock_file(self) -> Path:
        """Held by the supervisor while it lives."""
        return self.home / SUPERVISOR_LOCK

    def service(self, name: str) -> Path:
        """Data folder of one service."""
        return self.home / "services" / name

    def log(self, name: str) -> Path:
        """Log file of one process."""
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Make the folders, for their owner only. Raises OSError where that is not possible."""
        own = [self.service(name) for name in SERVICES]
        for path in (
            self.home,
            self.secrets,
            self.nats,
            self.s3,
            self.logs,
            self.environments,
            self.executor,
            self.home / "services",
            *own,
        ):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Write a file only its owner may read, atomically."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        os.fchmod(descriptor, 0o600)  # one left behind may have had another mode
        out.write(text)
    temporary.replace(path)
