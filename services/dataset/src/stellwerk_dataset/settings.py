"""Settings of the dataset service."""

from pathlib import Path

from pydantic import Field, field_validator

from stellwerk_dataset.egress import Limits
from stellwerk_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """The kit's settings and the bounds on reading web addresses."""

    egress_allow: frozenset[str] = Field(
        frozenset(),
        description='JSON list of "host:port" to read although private or on an odd port.',
    )
    egress_ca_file: Path | None = Field(
        None, description="PEM file of further certificate authorities for https."
    )
    egress_max_bytes: int = Field(
        20 * 1024**3, ge=1, description="Largest web file, in bytes, also after decompression."
    )
    egress_connect_s: float = Field(30.0, gt=0, le=300, description="Limit to resolve and connect.")
    egress_idle_s: float = Field(60.0, gt=0, le=600, description="Limit between two pieces.")
    egress_total_s: float = Field(3600.0, gt=0, le=86_400, description="Limit of one whole read.")
    url_rewrites: Path | None = Field(
        None, description="JSON file of data hosts that are gone, asked before the built-in rules."
    )
    url_mirrors: dict[str, Path] = Field(
        {}, description="JSON object: name of a mirror in those rules to its folder here."
    )

    @field_validator("egress_allow")
    @classmethod
    def _host_and_port(cls, items: frozenset[str]) -> frozenset[str]:
        for item in items:
            host, _, port = item.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
                raise ValueError(f'{item!r} is not "host:port", for example "files.lab:8080"')
        return frozenset(item.lower() for item in items)

    @property
    def limits(self) -> Limits:
        """Bounds of one read."""
        return Limits(
            bytes=self.egress_max_bytes,
            connect_s=self.egress_connect_s,
            idle_s=self.egress_idle_s,
            total_s=self.egress_total_s,
        )

    @property
    def retry_delays_s(self) -> tuple[float, ...]:
        """Pauses after transient failures of one read."""
        return (0.02, 0.05) if self.test_profile else (1.0, 4.0, 15.0)
