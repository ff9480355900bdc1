"""What to say where a script ended for a module that neither its environment nor its folder has.

Pure. Only the end of the log decides: a script that goes on after such an error has its reasons.
"""

import re

_MISSING = re.compile(r"ModuleNotFoundError: No module named '(?P<name>\w{1,100})'")


def hint(log: bytes) -> str | None:
    """For a script that failed and whose log ends with ``log``; None where that was not why."""
    lines = log.decode(errors="replace").rstrip().splitlines()
    found = _MISSING.search(lines[-1]) if lines else None
    if found is None:
        return None
    return (
        f"there is no module {found['name']!r} in its environment nor beside it: add the package "
        "to the environment (--package, --requirements, or a curated one: docs/howto/"
        "environments.md), or the file to the source folder"
    )
