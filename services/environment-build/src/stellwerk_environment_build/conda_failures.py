"""What an error of the conda solver means for whoever waits. Pure."""

import re
from pathlib import Path

from stellwerk_environment_build.failures import NO_SPACE, Failure, classify, redact

_MAX_WORDS = 2000
_MISMATCH = re.compile(
    r"(hash|sha256|checksum)\s*(mismatch|does not match)|mismatch", re.IGNORECASE
)
_SPECS = {
    "unsolvable": (
        "env.unsatisfiable",
        "{channels}: these conda packages cannot be had together. Loosen the pins named here.",
    ),
    "spec": ("env.conda_package", "A conda package spec is not understood by the solver."),
    "channel": (
        "env.channel_unknown",
        "There is no such conda channel. Correct its name.",
    ),
    "hash": (
        "env.hash_required",
        "A channel has a package without SHA-256, and only those are installed.",
    ),
    "outside": (
        "env.conda_package_outside",
        "A conda package has files that would lie outside of it. Tell the channel's operator.",
    ),
    "gone": (
        "env.lock_gone",
        "What was recorded cannot be installed any more. Submit the run anew instead.",
    ),
}


def without_places(message: str, cache: Path, work: Path) -> str:
    """``message`` with names of files as they are in their package or in the environment."""
    roots = sorted({str(each) for path in (cache, work) for each in (path, path.resolve())})
    for root in reversed(roots):
        inner = r"(?:/(?:records/)?(?:packages|unpacking)(?:/tmp\w+)?/[^/\s'\"`]+)?/?"
        message = re.sub(re.escape(root) + inner, "", message)
    return message


def of_conda(error: str, message: str, channels: tuple[str, ...]) -> Failure:
    """The failure behind ``error``, a kind the worker knows, and the solver's own ``message``."""
    words = redact(message)
    words = words if len(words) <= _MAX_WORDS else words[:_MAX_WORDS] + " …"
    if error in _SPECS:
        code, hint = _SPECS[error]
        text = hint.format(channels=", ".join(channels))
        return Failure("your-spec", code, f"{text}\n{words}", retryable=False)
    if NO_SPACE.search(message):
        return classify("install", 1, message)
    if error == "unreachable" or "error sending request" in message:
        return Failure(
            "index-unreachable",
            "env.channel_unreachable",
            f"A conda channel did not answer. Try again later.\n{words}",
            retryable=True,
        )
    if error in {"denied", "logins"}:
        return Failure(
            "internal",
            "env.channel_denied" if error == "denied" else "env.channel_logins",
            "A conda channel does not let this platform in. The operator adds its login to the "
            f"file that RATTLER_AUTH_FILE names, or corrects it.\n{words}",
            retryable=False,
        )
    if error == "index":
        return Failure(
            "index-unreachable",
            "env.channel_broken",
            f"The index of a conda channel cannot be read; tell its operator.\n{words}",
            retryable=True,
        )
    if error == "internal":
        return Failure(
            "internal",
            "env.build_failed",
            f"The conda solver broke off ({words}). Try again; if it stays, tell the operator.",
            retryable=True,
        )
    if _MISMATCH.search(message):
        return Failure(
            "hash-mismatch",
            "env.hash_mismatch",
            "A conda channel delivered another file than its index names. Nothing was installed; "
            f"tell the operator of the channel.\n{words}",
            retryable=False,
        )
    return Failure(
        "your-spec",
        "env.conda_package_broken",
        f"A conda package cannot be installed. Choose another version of it.\n{words}",
        retryable=False,
    )
