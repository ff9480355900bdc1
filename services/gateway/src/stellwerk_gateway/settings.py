"""Settings of the gateway, read from ``STELLWERK_*`` environment variables."""

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from stellwerk.ids import ID_PATTERN
from stellwerk_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """Where the REST interface listens, who may use it, and how much they may send."""

    api_host: str = Field("127.0.0.1", description="Address of the REST interface.")
    api_port: int = Field(8470, ge=0, le=65535, description="Its port; 0 takes a free one.")
    tokens_file: Path = Field(
        description='JSON list of {"name", "sha256", "scope"}: who may use the interface.'
    )
    run_token_key: Path | None = Field(
        None, description="File with the key that signs the tokens of runs; else none is accepted."
    )
    run_token_grace_s: float = Field(
        30.0, ge=0, description="Seconds that the token of a run works on after the run has ended."
    )
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Host names accepted besides the loopback names, as a JSON list."
    )
    inside_hosts: tuple[str, ...] = Field(
        (),
        description="Those of them that only the platform's own network knows, as a JSON list: "
        "who asks there gets addresses of files there.",
    )
    allow_remote: bool = Field(
        False,
        description="Listen off loopback. Tokens then travel the network: put TLS in front.",
    )
    workspace: str = Field("default", pattern=ID_PATTERN, description="Name of this platform.")
    max_connections: int = Field(1000, ge=10, le=100_000, description="More are answered 503.")
    max_body_bytes: int = Field(1024 * 1024, ge=1024, description="Largest JSON body.")
    max_manifest_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="Largest body where lists of files are sent."
    )
    body_idle_s: float = Field(
        30.0, gt=0, le=600, description="Seconds a client may pause within a body."
    )
    header_s: float = Field(
        10.0, gt=0, le=600, description="Seconds a client has for the head of a request."
    )

    @model_validator(mode="after")
    def _local_unless_told(self) -> Self:
        if not self.allow_remote and not _is_loopback(self.api_host):
            raise ValueError(
                f"api_host {self.api_host!r} is not a loopback address. Set "
                "STELLWERK_ALLOW_REMOTE=true to listen there, behind a proxy that speaks TLS, "
                "and name its host in STELLWERK_ALLOWED_HOSTS."
            )
        return self


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
