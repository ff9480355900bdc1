"""Says which variables the packages of a conda environment set for whoever activates it.

Run as a script by the environment's own interpreter (3.6 or newer; standard library only), in a
cell: ``python -I -S activation_worker.py <environment> <answer>``. As conda does, it reads
``etc/conda/env_vars.d`` and lets a shell go through ``etc/conda/activate.d``. The answer is JSON:
``variables`` that differ from before, and ``failed``, true where the shell broke off.
"""

import glob
import json
import os
import subprocess
import sys

UNSET = "***unset***"
SCRIPT = 'for each; do . "$each"; done >&2; exec /usr/bin/env -0'


def main(environment: str, answer: str) -> int:
    """Exit status: 0."""
    before = dict(os.environ)
    after = dict(before)
    failed = False
    for path in sorted(glob.glob(environment + "/etc/conda/env_vars.d/*.json")):  # noqa: PTH207
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123
                after.update({str(key): str(value) for key, value in json.load(file).items()})
        except (OSError, ValueError, AttributeError):
            failed = True
    scripts = sorted(glob.glob(environment + "/etc/conda/activate.d/*.sh"))  # noqa: PTH207
    if scripts:
        shell = next(each for each in ("/bin/bash", "/bin/sh") if os.path.exists(each))  # noqa: PTH110
        done = subprocess.run(
            [shell, "-c", SCRIPT, "activate"] + scripts,  # noqa: RUF005 - as old a Python as it is
            env={key: value for key, value in after.items() if value != UNSET},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
        )
        if done.returncode == 0:
            pairs = (os.fsdecode(each).partition("=") for each in done.stdout.split(b"\0") if each)
            after = {name: value for name, _, value in pairs}
        else:
            failed = True
    changed = {name: value for name, value in after.items() if before.get(name) != value}
    changed = {name: value for name, value in changed.items() if value != UNSET}
    with open(answer, "w") as file:  # noqa: PTH123
        json.dump({"variables": changed, "failed": failed}, file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
