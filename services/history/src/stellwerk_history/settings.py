"""Settings of the history service."""

from pathlib import Path

from pydantic import Field

from stellwerk_kit.settings import ServiceSettings

GIB = 1024**3


class Settings(ServiceSettings):
    """The kit's settings, the room for logs, and how patient the archiver is."""

    log_cache_bytes: int = Field(
        5 * GIB,
        ge=0,
        description="Local room for logs that are in the object store already, in bytes.",
    )
    archive_budget_s: float | None = Field(
        None,
        gt=0,
        le=86_400,
        description="How long logs and outputs of an ended run may be missing; default 600 s.",
    )
    archive_parallel: int = Field(8, ge=1, le=64, description="Runs archived at a time.")

    @property
    def archive_limit_s(self) -> float:
        """The budget in force, in seconds."""
        return self.archive_budget_s or (10.0 if self.test_profile else 600.0)

    @property
    def archive_retry_s(self) -> float:
        """Pause before the object store is asked again, in seconds."""
        return 0.1 if self.test_profile else 2.0

    @property
    def log_dir(self) -> Path:
        """Where log files lie."""
        return self.data_dir / "logs"
