"""Environment variables of every process of the stack: the whole mapping, in one place.

Services get what their settings classes read (``STELLWERK_*``), the caller's own ``STELLWERK_*``
for settings this module does not decide, and the few variables below. Secrets are always paths of
files: an environment can be read in ``/proc`` and in crash reports.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from stellwerk_embedded.layout import EXECUTOR_ID, Layout
from stellwerk_embedded.s3_config import BUCKET

PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "TMPDIR", "LD_LIBRARY_PATH",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CUDA_VISIBLE_DEVICES",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_CONFIG_FILE",
    "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH",
    "RATTLER_AUTH_FILE",
)  # fmt: skip
"""Variables of the caller that processes get, beside ``UV_*`` and ``STELLWERK_*``."""

MNIST = Path(__file__).parents[4] / "training" / "examples" / "keras-mnist" / "data"
"""The repository's own copy of MNIST, for datasets whose web hosts are gone; only in a checkout."""

CLIENTS_ONLY = frozenset(
    {"STELLWERK_TOKEN", "STELLWERK_TOKEN_FILE", "STELLWERK_URL", "STELLWERK_HOME"}
)
"""What tells a client where a platform is; no business of a service."""


def base(caller: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What every process gets from the caller."""
    return {
        name: text
        for name, text in caller.items()
        if name in PASSED_ON
        or (name.startswith(("UV_", "STELLWERK_")) and name not in CLIENTS_ONLY)
    }


def of_s3() -> dict[str, str]:
    """The object store: without the limit its memory grows by the gigabyte with uploads."""
    return base() | {"GOMEMLIMIT": "256MiB"}


def of_service(name: str, layout: Layout, ports: Mapping[str, int]) -> dict[str, str]:
    """A service, or the ``admin`` job that makes streams."""
    secrets = layout.secrets
    settings = {
        "NATS_URL": f"nats://127.0.0.1:{ports['nats']}",
        "NATS_CREDENTIALS": str(secrets / f"nats-{name}.json"),
        "DATA_DIR": str(layout.service(name)),
        "HTTP_HOST": "127.0.0.1",
        "HTTP_PORT": str(ports.get(f"{name}-operations", 0)),
        "S3_ENDPOINT": f"127.0.0.1:{ports['s3']}",
        "S3_CREDENTIALS": str(secrets / "s3.json"),
        "S3_BUCKET": BUCKET,
    }
    if name == "gateway":
        settings |= {
            "API_HOST": "127.0.0.1",
            "API_PORT": str(ports["gateway"]),
            "TOKENS_FILE": str(secrets / "tokens.json"),
        }
    if name == "keyvault":
        settings["MASTER_KEYS_FILE"] = str(secrets / "keyvault-keys.json")
    if name == "dataset" and MNIST.is_dir() and "STELLWERK_URL_MIRRORS" not in os.environ:
        settings["URL_MIRRORS"] = json.dumps({"mnist": str(MNIST)})
    if name in {"environment-build", "gpu-executor"}:
        settings["ENVIRONMENTS_DIR"] = str(layout.environments)
    if name in {"gateway", "gpu-executor"}:
        settings["RUN_TOKEN_KEY"] = str(layout.run_token_key)
    if name == "gpu-executor":
        settings |= {
            "DATABASE_URL": "",  # its store is of its machine, wherever the others' are
            "EXECUTOR_ID": EXECUTOR_ID,
            "EXECUTOR_DIR": str(layout.executor),
            "SCHEDULER_URL": f"http://127.0.0.1:{ports['scheduler-operations']}",
            "GATEWAY_URL": f"http://127.0.0.1:{ports['gateway']}",
        }
    # Threads that touch the heap would each get an arena of their own: tens of megabytes at rest.
    python = {"MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"}
    return base() | python | {f"STELLWERK_{key}": text for key, text in settings.items()}
