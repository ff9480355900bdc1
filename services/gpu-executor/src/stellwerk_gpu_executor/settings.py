"""Settings of the gpu-executor."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from stellwerk_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """One executor: one process on one machine that provides nodes."""

    executor_id: str = Field(
        "local", pattern=r"^[a-z0-9](?:[a-z0-9-]{0,14}[a-z0-9])?$", description="Its name."
    )
    executor_dir: Path = Field(
        Path(".stellwerk/executor"), description="Folder of the node cache and the attempts."
    )
    environments_dir: Path = Field(
        Path(".stellwerk/environments"), description="Environment cache that runs use."
    )
    host_interpreters: bool = Field(
        True,
        description="Allow runs that use a Python of this machine (user-managed environments).",
    )
    max_nodes: int = Field(8, ge=1, le=1000, description="How many nodes it provides at most.")
    pools: tuple[str, ...] = Field((), description="Pools it provides nodes for; empty: any.")
    scheduler_url: str | None = Field(
        None, description="Operations address of the scheduler: leases when the bus is away."
    )
    scheduler_credentials: Path | None = Field(
        None, description='JSON file {"token"} for that address, where it asks for one.'
    )
    run_token_key: Path | None = Field(
        None, description="File with the key that signs the tokens of runs; else they get none."
    )
    gateway_url: str = Field("http://127.0.0.1:8470", description="What runs see as the service.")
    cache_bytes: int = Field(
        50 * 1024**3, ge=0, description="Size of the node cache; least recently used leave."
    )
    lazy_mounts: bool = Field(
        True, description="Mount large inputs and fetch what is read, where rclone and FUSE are."
    )
    lazy_mount_bytes: int = Field(
        256 * 1024**2,
        ge=0,
        description="An input by as_mount() with so many bytes to fetch is mounted lazily.",
    )
    launcher: Literal["process", "docker"] = Field(
        "process", description="What runs are: plain processes, or containers of a Docker engine."
    )
    run_image: str = Field(
        "stellwerk/platform:local",
        description="Image of runs in containers: the Python that environments were made with.",
    )
    run_network: str = Field(
        "none", description="Network of runs in containers: none, or a Docker network by name."
    )
    registry: str | None = Field(
        None, description="host:port of the registry that images of environments come from."
    )
    registry_credentials: Path | None = Field(
        None,
        description='JSON file {"username", "password"} of that registry; of several {host: {…}}.',
    )
    run_shm_bytes: int = Field(1024**3, ge=1024**2, description="Their /dev/shm, in bytes.")
    sandbox: Literal["auto", "require", "off"] = Field(
        "auto",
        description="Wall in runs that are plain processes: where this machine can, always (else "
        "a run is refused), or never.",
    )
    sandbox_readable: tuple[Path, ...] = Field(
        (), description="Folders of this machine that walled-in runs may read, besides the system."
    )
    sandbox_network: Literal["host", "none"] = Field(
        "host", description="Network of walled-in runs: this machine's, or none at all."
    )
    run_log_bytes: int = Field(1024**3, ge=1024, description="Longest log of one run.")
    outputs_scan_s: float = Field(
        10.0, gt=0, description="How often finished files under outputs are uploaded meanwhile."
    )
    preload: tuple[str, ...] = Field(
        ("numpy", "tensorflow", "keras", "matplotlib.pyplot", "torch", "jax"),
        description="Modules a warm process loads, those that its environment has.",
    )
    warm_processes: int = Field(
        2,
        ge=0,
        le=100,
        description="How many warm processes it keeps, and as many plain; 0: runs start cold.",
    )
    warm_environments: tuple[str, ...] = Field(
        (), description="Environments to load when it starts, by name; they are built if need be."
    )
    warm_memory_bytes: int = Field(
        2 * 1024**3,
        ge=0,
        description="Memory of all warm processes; least recently used leave. The kernel ends one "
        "that takes more alone, where control groups limit memory.",
    )
    warm_forks: int = Field(
        500,
        ge=1,
        description="After so many runs a warm process is begun anew, while the old one serves on.",
    )
