"""Which files of a build's folder go to the engine: all that its ``.dockerignore`` leaves.

Its patterns are the submitter's, and there are some that no time is enough for. So a process of
its own compares them with the names, and is ended when it takes too long.
"""

import json
import subprocess
import sys
from pathlib import Path

from docker.utils.build import exclude_paths

from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.image_failures import ignore_file

IGNORE_FILE = ".dockerignore"
MAX_BYTES = 65_536
"""The most that such a file holds."""
LIMIT_S = 20.0


def ignored(context: Path, *names: str) -> list[str]:
    """The patterns of the first of those files that is there.

    Raises BuildFailedError for one that is too long.
    """
    for name in names:
        path = context / name
        if path.is_file():
            if path.stat().st_size > MAX_BYTES:
                raise BuildFailedError(ignore_file(name, f"has more than {MAX_BYTES} bytes"))
            lines = (line.strip() for line in path.read_text(errors="replace").splitlines())
            return [line for line in lines if line and not line.startswith("#")]
    return []


def sent(context: Path, dockerfile: str, patterns: list[str]) -> list[str]:
    """Paths of files and folders, sorted; ``dockerfile`` is among them whatever is ignored.

    Raises BuildFailedError for patterns that cannot be read, or not be compared in LIMIT_S.
    """
    if not patterns:
        return sorted(path.relative_to(context).as_posix() for path in context.rglob("*"))
    asked = {"root": str(context), "patterns": patterns, "dockerfile": dockerfile}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", __spec__.name],
            input=json.dumps(asked).encode(),
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        why = f"is not compared with all names within {LIMIT_S:g} s; let its patterns have fewer *"
        raise BuildFailedError(ignore_file(IGNORE_FILE, why)) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:100]
        raise BuildFailedError(ignore_file(IGNORE_FILE, f"has a pattern that is none: {said}"))
    found: list[str] = json.loads(done.stdout)
    return found


def main() -> int:
    """Reads what is asked from stdin, writes the paths to stdout, both as JSON."""
    asked = json.load(sys.stdin)
    found = exclude_paths(asked["root"], asked["patterns"], dockerfile=asked["dockerfile"])
    json.dump(sorted(found), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
