"""Settings every service shares, read from ``STELLWERK_*`` environment variables."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stellwerk_kit.dialects import checked_url


class ServiceSettings(BaseSettings):
    """Base of each service's settings class. Secrets come as paths of files, never as values."""

    model_config = SettingsConfigDict(
        env_prefix="STELLWERK_", env_ignore_empty=True, extra="ignore"
    )

    nats_url: str = Field("nats://127.0.0.1:8471", description="Address of the broker.")
    nats_credentials: Path | None = Field(
        None, description='JSON file {"user", "password"}; none for a broker without accounts.'
    )
    data_dir: Path = Field(Path(".stellwerk/service"), description="Folder of this service alone.")
    http_host: str = Field("127.0.0.1", description="Operations address: health and metrics.")
    http_port: int = Field(0, ge=0, le=65535, description="Operations port; 0 takes a free one.")
    database_url: str | None = Field(
        None,
        description="postgresql://user@host/{service}?passfile=…, or sqlite://; `{service}` stands "
        "for the service's name. Default: SQLite in the data folder.",
    )
    s3_endpoint: str = Field("127.0.0.1:8480", description="host:port of the S3 server.")
    s3_public_endpoint: str | None = Field(
        None, description="host:port that clients reach it at; default: the same."
    )
    s3_secure: bool = Field(False, description="Use https for the S3 server.")
    s3_region: str = Field("us-east-1", description="Region that presigned URLs are signed for.")
    s3_credentials: Path | None = Field(
        None, description='JSON file {"access_key", "secret_key"} of the S3 server.'
    )
    s3_bucket: str = Field("stellwerk", description="Bucket of all artifacts.")
    instance: str = Field("0", pattern=r"^[a-z0-9-]{1,20}$", description="Name of this replica.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    time_profile: Literal["production", "test"] = Field(
        "production", description="Timers: production, or about a thirtieth for tests."
    )

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, text: str | None) -> str | None:
        return text if text is None else checked_url(text)

    def read_credentials(self, path: Path | None) -> dict[str, str]:
        """The JSON object in a credentials file; empty without a file."""
        if path is None:
            return {}
        return {str(key): str(text) for key, text in json.loads(path.read_text()).items()}

    @property
    def test_profile(self) -> bool:
        """Whether timers are compressed."""
        return self.time_profile == "test"
