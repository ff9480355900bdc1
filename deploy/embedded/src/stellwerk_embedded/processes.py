"""The processes of the stack: command, environment, readiness, order. No secrets in any of it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stellwerk_embedded import binaries, environment, s3_config
from stellwerk_embedded.layout import SERVICES, Layout
from stellwerk_embedded.probes import HttpProbe, NatsProbe, Probe, S3Probe

TOPOLOGY = "topology"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process.

    Without ``probe`` it is a job: done when it has ended with status 0. ``after`` names what must
    be ready before it starts; the end goes the other way round. It has ``stop_s`` seconds to end
    when it is told to.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    folder: Path
    probe: Probe | None = None
    port: int = 0
    after: tuple[str, ...] = ()
    stop_s: float = 25.0


def specs(layout: Layout, ports: Mapping[str, int]) -> list[ProcessSpec]:
    """All processes of a prepared folder. Raises UserError when a server is not installed."""
    nats = ProcessSpec(
        name="nats",
        command=(binaries.NATS.find(), "-c", str(layout.nats / "nats.conf")),
        environment=environment.base(),
        folder=layout.nats,
        probe=NatsProbe(ports["nats"], layout.secrets / "nats-admin.json"),
        port=ports["nats"],
        stop_s=10.0,
    )
    s3 = ProcessSpec(
        name="s3",
        command=s3_config.command(binaries.WEED.find(), layout),
        environment=environment.of_s3(),
        folder=layout.s3,  # it reads its security.toml from there
        probe=S3Probe(ports["s3"], layout.secrets / "s3.json"),
        port=ports["s3"],
        stop_s=10.0,
    )
    topology = ProcessSpec(
        name=TOPOLOGY,
        command=(sys.executable, "-m", "stellwerk_kit.topology", "apply"),
        environment=environment.of_service("admin", layout, ports),
        folder=layout.home,
        after=("nats",),
    )
    return [nats, s3, topology, *(_service(name, layout, ports) for name in SERVICES)]


def _service(name: str, layout: Layout, ports: Mapping[str, int]) -> ProcessSpec:
    """A service waits by itself for the streams and the bucket while it loads its libraries."""
    port = ports[f"{name}-operations"]
    return ProcessSpec(
        name=name,
        command=(sys.executable, "-m", f"stellwerk_{name.replace('-', '_')}"),
        environment=environment.of_service(name, layout, ports),
        folder=layout.service(name),
        probe=HttpProbe(port),
        port=port,
        after=("nats", "s3"),
    )
