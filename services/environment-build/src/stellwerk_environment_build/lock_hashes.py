"""Holds a lock to files that somebody named before: only hashes that both know stay. Pure."""

import re
from collections.abc import Mapping

from packaging.requirements import Requirement

from stellwerk.environment_requirement import normalise_requirements
from stellwerk_environment_build.failures import BuildFailedError, Failure

_ENTRY = re.compile(
    r"^(?P<pin>[A-Za-z0-9][\w.-]*==[^\s;\\]+)(?P<rest>[^\n]*)"
    r"(?P<hashes>(?:\n[ \t]+--hash=[^\n]*)+)",
    re.MULTILINE,
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def held_to(lock: str, allowed: Mapping[str, tuple[str, ...]]) -> str:
    """``lock`` with the hashes in ``allowed`` alone, by canonical ``name==version``.

    Packages that ``allowed`` does not name stay as they are. Raises BuildFailedError
    (env.hash_mismatch) where none of the index's files is allowed.
    """

    def restrict(found: re.Match[str]) -> str:
        pin = normalise_requirements([Requirement(found["pin"])])[0]
        if pin not in allowed:
            return found[0]
        kept = sorted(set(_HASH.findall(found["hashes"])) & set(allowed[pin]))
        if not allowed[pin]:  # a package that was locked for other systems
            raise BuildFailedError(
                Failure(
                    "your-spec",
                    "env.no_wheel",
                    f"The lock has no file of {found['pin']} for Linux; choose a version that has.",
                    retryable=False,
                )
            )
        if not kept:
            raise BuildFailedError(
                Failure(
                    "hash-mismatch",
                    "env.hash_mismatch",
                    f"The package index has no file of {found['pin']} that the lock names. Nothing "
                    "was installed; make the lock anew, or tell the operator of the index.",
                    retryable=False,
                )
            )
        listed = " \\\n".join(f"    --hash=sha256:{digest}" for digest in kept)
        return f"{found['pin']}{found['rest']}\n{listed}"

    return _ENTRY.sub(restrict, lock) if allowed else lock
