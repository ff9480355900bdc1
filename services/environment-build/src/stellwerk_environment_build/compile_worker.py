"""Byte-compiles the modules named in a list, in several processes.

Run as a script by the environment's own interpreter (3.6 or newer; standard library only):
``python -I -S compile_worker.py <NUL-separated list> <processes>``. Prints the number of modules
done since its last line. A module that is no valid Python is left alone; anything else ends with
status 1, a process that was killed with 128 + its signal.
"""

import gc
import os
import py_compile
import sys
from contextlib import suppress

REPORT_EVERY = 50


def main(listing: str, workers: int) -> int:
    """Exit status of the whole."""
    with open(listing, "rb") as file:  # noqa: PTH123
        names = [os.fsdecode(name) for name in file.read().split(b"\0") if name]
    children = [_begin(names[share::workers]) for share in range(workers)]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    killed = [os.WTERMSIG(status) for status in statuses if os.WIFSIGNALED(status)]
    if killed:
        return 128 + killed[0]
    return 1 if any(statuses) else 0


def _begin(names: "list[str]") -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        # Syntax trees are freed by reference counting alone; the collector only costs time.
        gc.disable()
        _compile(names)
        status = 0
    except OSError as error:
        sys.stdout.write(f"error: {error}\n")
        sys.stdout.flush()
    finally:
        os._exit(status)


def _compile(names: "list[str]") -> None:
    # What is compiled tells neither when nor where: it stays valid as a copy in an image, whose
    # files all have one time. The import puts the path right.
    mode = getattr(py_compile, "PycInvalidationMode", None)
    timeless = {"invalidation_mode": mode.UNCHECKED_HASH} if mode else {}
    for number, name in enumerate(names, 1):
        with suppress(py_compile.PyCompileError):
            inside = name.rpartition("/site-packages/")[2]
            py_compile.compile(name, dfile=inside, doraise=True, **timeless)
        if number % REPORT_EVERY == 0:
            sys.stdout.write(f"{REPORT_EVERY}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
