"""Resolves the curated environments anew: ``<name>.lock`` beside each ``<name>.yaml``."""

import subprocess
import sys
from pathlib import Path

import uv

from stellwerk.curated import curated_file

FOLDER = Path(__file__).parent.parent / "shared/stellwerk/src/stellwerk/curated"
OLDEST_PYTHON = "3.11"


def main() -> int:
    """Write the locks; names of environments on the command line limit it to those."""
    for path in sorted(FOLDER.glob("*.yaml")):
        if sys.argv[1:] and path.stem not in sys.argv[1:]:
            continue
        wanted = "\n".join(curated_file(path.read_text()).packages)
        command = [uv.find_uv_bin(), "pip", "compile", "-", "--quiet", "--no-config", "--universal"]
        command += ["--python-version", OLDEST_PYTHON, "--only-binary", ":all:", "--no-header"]
        command += ["--no-annotate", "--no-emit-index-url", "--no-sources"]
        done = subprocess.run(command, input=wanted, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(f"{path.stem}: {done.stderr}", file=sys.stderr)
            return 1
        path.with_suffix(".lock").write_text(done.stdout)
        print(f"{path.stem}: {len(done.stdout.splitlines())} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
