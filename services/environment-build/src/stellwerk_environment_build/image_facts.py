"""What a run meets in a foreign image: its Python, its variables. Tried in a container.

The container has no network, no capability, a read-only root and another user than root's: as a
run has.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import requests
from docker.errors import APIError, NotFound
from docker.types import LogConfig

from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.image_engine import Client, remove
from stellwerk_environment_build.image_failures import no_python
from stellwerk_environment_build.run_variables import variables_of

_FEW_WORDS = LogConfig(type="json-file", config={"max-size": "1m", "max-file": "1"})
OLDEST = (3, 8)
PROBE_S = 60

_PROBE = """\
import json, shutil, sys
try:
    import venv, ensurepip
except ImportError:
    venv = None
print(json.dumps({"python": "%d.%d.%d" % sys.version_info[:3], "venv": venv is not None,
                  "interpreter": shutil.which(sys.argv[1])
                  or (sys.executable if sys.argv[1] == "python" else None)}))
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """``python``: version of its python3; ``interpreter``: path of the one that was asked for."""

    python: str
    interpreter: str | None
    has_venv: bool
    path: str
    variables: dict[str, str]
    not_taken: tuple[str, ...]


def facts_of(client: Client, image: Any, interpreter: str, name: str) -> Facts:
    """Look into an image. Raises BuildFailedError where no run could begin in it."""
    with suppress(NotFound):
        remove(client.containers.get(name))
    container = client.containers.create(
        image.id, entrypoint=["python3", "-I", "-S", "-c", _PROBE], command=[interpreter],
        name=name, user="10900", network_mode="none", use_config_proxy=False, cap_drop=["ALL"],
        read_only=True, log_config=_FEW_WORDS, pids_limit=64, mem_limit=1 << 29,
        security_opt=["no-new-privileges=true"],
        environment={"LD_PRELOAD": "", "LD_LIBRARY_PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    try:
        try:
            container.start()
        except APIError as error:
            raise BuildFailedError(no_python("has no python3 on its PATH")) from error
        status = ended(container, PROBE_S)
        said = container.logs(stdout=True, stderr=False, tail=1).decode(errors="replace")
    finally:
        remove(container)
    return _read(image, status, said)


def ended(container: Any, limit_s: float) -> int:
    """Its status. Raises BuildFailedError where its Python runs on, TROUBLE without an engine."""
    try:
        return int(container.wait(timeout=limit_s)["StatusCode"])
    except requests.RequestException as error:
        if not isinstance(error, requests.Timeout) and "timed out" not in str(error):
            raise
        container.reload()  # fails where it is the engine that does not answer
        if container.status != "running":
            raise
        raise BuildFailedError(
            no_python(f"has a python3 that does not answer within {limit_s:g} s")
        ) from error


def _read(image: Any, status: int, said: str) -> Facts:
    try:
        found = json.loads(said.strip().splitlines()[-1])
        python = str(found["python"])
        version = tuple(int(part) for part in python.split("."))
    except (ValueError, LookupError, TypeError) as error:
        why = f"has a python3 that does not work (it ended with status {status})"
        raise BuildFailedError(no_python(why)) from error
    if version < OLDEST:
        raise BuildFailedError(no_python(f"has Python {python}"))
    set_there = dict(each.partition("=")[::2] for each in image.attrs["Config"]["Env"] or ())
    variables, not_taken = variables_of(set_there.items())
    return Facts(
        python=python,
        interpreter=found["interpreter"],
        has_venv=bool(found["venv"]),
        path=set_there.get("PATH", ""),
        variables=variables,
        not_taken=not_taken,
    )
