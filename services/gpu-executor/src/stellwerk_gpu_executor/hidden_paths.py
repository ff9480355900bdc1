"""What to say where a script ended for a path of the machine that no walled-in run sees. Pure.

Only the path's own text decides, never what the machine has: else runs could ask what is there.
"""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

TAIL_BYTES = 4096
LAST_LINES = 12
SEEN = (
    *("/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/opt", "/proc", "/run", "/sbin"),
    *("/sys", "/tmp", "/usr", "/var"),  # noqa: S108 - a run's own
)
"""Folders that a run has, the machine's or its own: what is missing there is missing."""
_LONGEST = 200
_MISSING = re.compile(
    r"No such file or directory:? ?b?['\"](?P<quoted>/[^'\"\n]+)['\"]"
    r"|(?:^|[\s'\"])(?P<plain>/[^\s:;'\"]+)['\"]?[:;] No such file or directory",
    re.MULTILINE,
)


def hint(log: bytes, seen: Iterable[str], *, container: bool = False) -> str | None:
    """For a script that failed and whose log ends with ``log``; None where that was not why.

    ``seen``: further folders that the run has.
    """
    lines = log.decode(errors="replace").rstrip().splitlines()[-LAST_LINES:]
    found = list(_MISSING.finditer("\n".join(lines)))
    if not found:
        return None
    path = PurePosixPath(found[-1]["quoted"] or found[-1]["plain"])
    folders = [*SEEN, *seen]
    if ".." in path.parts or any(path.is_relative_to(each) for each in folders):
        return None
    shown = str(path)[:_LONGEST]
    walls = "run in a container" if container else "sandboxed run"
    instead = "" if container else ", or the operator names it in STELLWERK_SANDBOX_READABLE"
    return (
        f"{shown!r} was not found; a {walls} sees no folder of the machine but the system's. If it "
        f"is there, make it a dataset (as_mount()){instead}: docs/howto/sandbox.md"
    )
