"""Whether the package index answers, asked as a build asks it. ``stellwerk doctor`` tells it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from stellwerk_environment_build import uv_command
from stellwerk_environment_build.failures import redact
from stellwerk_environment_build.settings import Settings
from stellwerk_environment_build.uv_command import IndexOptions

REQUIREMENT = "packaging"
"""A small package that every index has."""
LIMIT_S = 10.0


def report(index: IndexOptions, environ: Mapping[str, str]) -> dict[str, object]:
    """Whether an index is asked at all, whether it answered in time, and its last words if not."""
    if index.no_index:
        return {"asked": False, "answers": False, "said": ""}
    once = {**environ, "UV_HTTP_TIMEOUT": "5", "UV_HTTP_RETRIES": "0"}
    with tempfile.TemporaryDirectory() as folder:
        wanted, lock = Path(folder, "wanted.txt"), Path(folder, "lock.txt")
        wanted.write_text(f"{REQUIREMENT}\n")
        try:
            done = subprocess.run(
                uv_command.resolve_command(wanted, lock, Path(sys.executable), index),
                env=uv_command.uv_environment(
                    once,
                    cache=Path(folder, "cache"),
                    config_file=uv_command.operator_config(environ),
                ),
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"asked": True, "answers": False, "said": f"nothing within {LIMIT_S:g} s"}
    last = (done.stderr.strip().splitlines() or [""])[-1].strip().removeprefix("cause: ")
    said = redact(last, uv_command.secrets_in(environ))[:300] if done.returncode else ""
    return {"asked": True, "answers": done.returncode == 0, "said": said}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(report(Settings().index, os.environ)))
