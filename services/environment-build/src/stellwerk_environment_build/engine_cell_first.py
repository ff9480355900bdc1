"""The first process of a cell that is a container; standard library only.

Its stdin is one line, JSON: ``argv`` and ``environ`` of the program. So nothing of them is in what
the engine keeps about the container. The end of stdin is the end of all in it: whoever wanted the
program is no more, or wants it no more. Ends as the program does.
"""

import json
import os
import subprocess
import sys
import threading

_KILLED = 137


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(_KILLED)  # of a container's first process: the kernel ends the others


def main() -> int:
    """Exit status of the program, 128 + the signal that ended it."""
    asked = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        status = subprocess.run(
            asked["argv"], env=asked["environ"], stdin=subprocess.DEVNULL, cwd="/", check=False
        ).returncode
    except OSError as error:
        sys.stderr.write(f"{asked['argv'][0]}: {error.strerror}\n")
        return 127
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # its thread still waits for stdin
