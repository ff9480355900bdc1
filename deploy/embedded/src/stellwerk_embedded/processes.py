"""The processes of the stack: command, environment, readiness."""

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from stellwerk_embedded import nats_config, s3_config
from stellwerk_embedded.layout import SERVICES, Layout

PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "TMPDIR", "LD_LIBRARY_PATH",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "ALL_PROXY",
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_CONFIG_FILE",
    "XDG_CONFIG_HOME", "XDG_CACHE_HOME",
)  # fmt: skip
"""Variables of the caller that services get, beside ``UV_*`` and ``STELLWERK_*``."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process. ``probe`` is ``http:<port>`` (GET /readyz is 200) or ``tcp:<port>``."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    folder: Path
    probe: str
    port: int


def find_binary(name: str, variable: str) -> str | None:
    """A server's binary: the one named by ``variable``, or the wheel's beside this Python."""
    if given := os.environ.get(variable):
        return given
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else None


def base_environment() -> dict[str, str]:
    """What every process gets from the caller."""
    kept = {
        name: text
        for name, text in os.environ.items()
        if name in PASSED_ON or name.startswith(("UV_", "STELLWERK_"))
    }
    kept.pop("STELLWERK_TOKEN", None)
    return kept


def specs(layout: Layout, ports: dict[str, int]) -> list[ProcessSpec]:
    """All processes, servers first. Raises FileNotFoundError when a server is not installed."""
    nats = find_binary("nats-server", "STELLWERK_NATS_SERVER")
    weed = find_binary("weed", "STELLWERK_WEED")
    for name, found in (("nats-server", nats), ("weed", weed)):
        if found is None or shutil.which(found) is None:
            raise FileNotFoundError(f"{name} is not installed; pip install 'stellwerk[server]'")
    base = base_environment()
    servers = [
        ProcessSpec(
            "nats",
            (str(nats), "-c", nats_config.write(layout, ports)),
            base,
            layout.home / "nats",
            f"tcp:{ports['nats']}",
            ports["nats"],
        ),
        ProcessSpec(
            "s3",
            tuple(s3_config.command(str(weed), layout, ports)),
            {**base, "GOMEMLIMIT": "256MiB"},
            layout.home / "s3",
            f"tcp:{ports['s3']}",
            ports["s3"],
        ),
    ]
    return servers + [_service(name, layout, ports, base) for name in SERVICES]


def service_environment(name: str, layout: Layout, ports: dict[str, int]) -> dict[str, str]:
    """Settings of a service; secrets are paths of files."""
    secrets, home = layout.secrets, layout.home
    settings = {
        "NATS_URL": f"nats://127.0.0.1:{ports['nats']}",
        "NATS_CREDENTIALS": str(secrets / f"nats-{name}.json"),
        "DATA_DIR": str(home / "services" / name),
        "HTTP_PORT": str(ports.get(f"{name}-operations", 0)),
        "S3_ENDPOINT": f"127.0.0.1:{ports['s3']}",
        "S3_CREDENTIALS": str(secrets / "s3.json"),
    }
    if name == "gateway":
        settings |= {"API_PORT": str(ports["gateway"]), "TOKENS_FILE": str(secrets / "tokens.json")}
    if name in {"environment-build", "gpu-executor"}:
        settings["ENVIRONMENTS_DIR"] = str(home / "environments")
    if name == "gpu-executor":
        settings |= {
            "EXECUTOR_DIR": str(home / "executor"),
            "SCHEDULER_URL": f"http://127.0.0.1:{ports['scheduler-operations']}",
            "GATEWAY_URL": f"http://127.0.0.1:{ports['gateway']}",
        }
    return {f"STELLWERK_{key}": text for key, text in settings.items()}


def topology_command(layout: Layout, ports: dict[str, int]) -> ProcessSpec:
    """The job that makes streams and consumers."""
    return ProcessSpec(
        "topology",
        (sys.executable, "-m", "stellwerk_kit.topology", "apply"),
        {**base_environment(), **service_environment("admin", layout, ports)},
        layout.home,
        "",
        0,
    )


def _service(name: str, layout: Layout, ports: dict[str, int], base: dict[str, str]) -> ProcessSpec:
    port = ports[f"{name}-operations"]
    return ProcessSpec(
        name,
        (sys.executable, "-m", f"stellwerk_{name.replace('-', '_')}"),
        {**base, **service_environment(name, layout, ports)},
        layout.home,
        f"http:{port}",
        port,
    )
