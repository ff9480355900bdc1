"""Settings of the environment-build service (``STELLWERK_*``)."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from stellwerk.errors import UserError
from stellwerk.override_table import Accelerator, OverrideTable, builtin, with_file
from stellwerk_environment_build.build_cell import CellSettings
from stellwerk_environment_build.conda_channels import ChannelSettings, Mode
from stellwerk_environment_build.construction import Limits
from stellwerk_environment_build.uv_command import IndexOptions
from stellwerk_kit.registry_logins import RegistryLogins
from stellwerk_kit.settings import ServiceSettings

_ADDRESS = re.compile(r"^(https?|file)://[^\s@]+$")
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


class Settings(ServiceSettings):
    """Where environments lie, where packages come from, and how long a build may take.

    The package index is the installer's own setting (``UV_DEFAULT_INDEX``, ``PIP_INDEX_URL``,
    or its configuration file), so that its credentials are nowhere else.
    """

    environments_dir: Path = Field(
        Path(".stellwerk/environments"), description="Environment cache; executors read it."
    )
    build_parallel: int = Field(2, ge=1, le=64, description="Builds at a time.")
    build_workers: int = Field(0, ge=0, le=256, description="Compiling processes; 0: one a core.")
    build_retries: int = Field(
        2, ge=0, le=10, description="Further tries when the index did not answer."
    )
    build_resolve_s: float = Field(600.0, gt=0, description="Limit of a resolution, in seconds.")
    build_install_s: float = Field(3600.0, gt=0, description="Limit of an installation.")
    build_compile_s: float = Field(1800.0, gt=0, description="Limit of the byte-compilation.")
    build_heartbeat_s: float = Field(5.0, gt=0, description="Longest silence in a build's log.")
    build_find_links: tuple[Path, ...] = Field((), description="Folders with further packages.")
    build_no_index: bool = Field(False, description="Use those folders alone, no package index.")
    build_allow_sdist: bool = Field(
        False, description="Allow source distributions: their code runs in the builder, unboxed."
    )
    images: Literal["none", "docker"] = Field(
        "none", description="Whether each environment also becomes an image, by a Docker engine."
    )
    base_image: str = Field(
        "python:3.11-slim-bookworm",
        description="What those images are made on; has the builder's Python at its place.",
    )
    registry: str | None = Field(
        None, description="host:port to push images to; without it they stay in the engine."
    )
    registry_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s@/]+/?$",
        description="Where this service reaches that registry, if not as the engine does: "
        "http://host:port. Default: https, or http on loopback.",
    )
    registry_credentials: Path | None = Field(
        None,
        description='JSON file {"username", "password"} of the registry; of several {host: {…}}.',
    )
    build_network: str = Field(
        "none",
        description="Docker network that the steps of Dockerfiles have; none: they have none.",
    )
    build_image_bytes: int = Field(
        30_000_000_000, ge=1_000_000, description="The most that a step of a Dockerfile may write."
    )
    build_memory_bytes: int = Field(
        4 << 30,
        ge=64 << 20,
        description="Memory of each step of a Dockerfile but BuildKit's, and of each container "
        "that a channel's packages are installed or started in.",
    )
    build_buildkit: bool = Field(
        True,
        description="Build Dockerfiles that need BuildKit with the engine's. Its steps have no "
        "limit of memory; a build ends when the machine has hardly any left.",
    )
    build_image_s: float = Field(1800.0, gt=0, description="Limit of the making of an image.")
    build_conda: Mode = Field(
        "auto",
        description="Where conda packages come from: channels; index, where the package index "
        "stands in for them; auto: channels if one can be reached.",
    )
    build_channels: dict[str, str] = Field(
        {},
        description='Addresses of conda channels by name: {"ours": "https://…/ours"}; beside them '
        "only conda-forge may be used.",
    )
    build_channel_alias: str | None = Field(
        None,
        description="Where conda-forge lies without an address of its own: a mirror, for example.",
    )
    build_sandbox: Literal["auto", "require", "off"] = Field(
        "auto",
        description="Install what a conda channel brings, and start its interpreter, in a sandbox "
        "(bubblewrap, else a container where images are made): where there is one, always (else "
        "such environments are not built), or never.",
    )
    sandbox_readable: tuple[Path, ...] = Field(
        (), description="Folders that it may read there besides the system, as runs may."
    )
    build_interpreters: tuple[Path, ...] = Field(
        (), description="Python interpreters to prefer over those found on the machine."
    )
    build_overrides: Path | None = Field(
        None, description="YAML file merged over the built-in override table of old requirements."
    )
    build_accelerator: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="What substitutes are chosen for; auto: cuda where there is a GPU."
    )

    @field_validator("build_overrides")
    @classmethod
    def _usable(cls, path: Path | None) -> Path | None:
        try:
            _ = path and with_file(path)
        except UserError as error:
            raise ValueError(error.message) from error
        return path

    @field_validator("build_channels")
    @classmethod
    def _without_logins(cls, channels: dict[str, str]) -> dict[str, str]:
        for name, address in channels.items():
            if not _ADDRESS.match(address):
                raise ValueError(
                    f"{name}: give an address that begins with https://, http:// or file:/// and "
                    "holds no login; logins belong into the file that RATTLER_AUTH_FILE names"
                )
        return channels

    @property
    def conda(self) -> ChannelSettings:
        """Where conda packages come from."""
        return ChannelSettings(self.build_conda, self.build_channels, self.build_channel_alias)

    @property
    def cell(self) -> CellSettings:
        """What a channel's interpreter is started in."""
        return CellSettings(self.build_sandbox, self.sandbox_readable)

    @property
    def limits(self) -> Limits:
        """Bounds of a build's phases."""
        return Limits(
            resolve_s=self.build_resolve_s,
            install_s=self.build_install_s,
            compile_s=self.build_compile_s,
            heartbeat_s=self.build_heartbeat_s,
            workers=self.build_workers,
        )

    @property
    def index(self) -> IndexOptions:
        """Where packages come from beside the configured index."""
        return IndexOptions(
            find_links=self.build_find_links,
            no_index=self.build_no_index,
            allow_sdist=self.build_allow_sdist,
        )

    @property
    def registry_logins(self) -> RegistryLogins:
        """Logins of registries."""
        return RegistryLogins.read(self.registry_credentials, self.registry)

    @property
    def overrides(self) -> OverrideTable:
        """The override table, the operator's file included."""
        return with_file(self.build_overrides) if self.build_overrides else builtin()

    @property
    def accelerator(self) -> Accelerator:
        """What runs compute with."""
        if self.build_accelerator == "auto":
            return "cuda" if _NVIDIA_DRIVER.exists() else "cpu"
        return self.build_accelerator

    @property
    def retry_s(self) -> float:
        """Pause before the first further try; it doubles."""
        return 0.1 if self.test_profile else 5.0
