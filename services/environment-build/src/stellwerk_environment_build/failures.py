"""Why a build failed: whose fault it is, whether trying again can help, and what to tell. Pure.

The tool's own words are kept, because they name the packages; addresses lose their credentials.
"""

import re
from dataclasses import dataclass
from typing import Literal

from stellwerk.errors import ProtocolError
from stellwerk.events.image import BuildFailure
from stellwerk_environment_build.engine_cell import NO_CONTAINER

Phase = Literal["resolve", "create", "install", "compile", "activate"]

_MAX_WORDS = 2000
_MAX_NAME = 300
_CREDENTIALS = re.compile(r"://[^/\s@'\"`]+@")
_UNPACKED = re.compile(r"/[^\s`']*/(\.tmp\w+|archive-v\d+/[\w-]+)/")
"""Where the installer unpacks: a place of the builder's machine."""
_LABEL = re.compile(r"^\s*(error|cause): ")
NO_SPACE = re.compile(r"No space left on device|os error 28\b|Disk quota exceeded|os error 122\b")
_NO_ANSWER = re.compile(
    r"Failed to fetch|error sending request|Request failed after|dns error|tcp connect error"
    r"|Connection (refused|reset)|operation timed out|HTTP status (server error|client error)"
    r"|invalid peer certificate",
    re.IGNORECASE,
)
_BAD_WHEEL = re.compile(
    r"Failed to (install|extract|read|unzip)|wheel is invalid|invalid wheel|RECORD|metadata is",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Failure:
    """``reason`` is who has to act, ``code`` what it was; both are stable. Never internals."""

    reason: BuildFailure
    code: str
    message: str
    retryable: bool


class BuildFailedError(Exception):
    """A build ended without an environment."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """``text`` without the credentials of addresses and without ``secrets``."""
    for secret in sorted(secrets, key=len, reverse=True):  # one may be a part of another
        text = text.replace(secret, "***")
    return _CREDENTIALS.sub("://***@", text)


def no_sandbox(missing: str) -> Failure:
    """The operator wants a sandbox for what a channel brings, and there is none."""
    return Failure(
        "internal",
        "env.sandbox_required",
        "Conda packages bring an interpreter of their own, which is started in a sandbox alone "
        f"here (STELLWERK_BUILD_SANDBOX=require), and there is none: {missing}. Tell the operator.",
        retryable=False,
    )


def untold(error: ProtocolError) -> Failure:
    """The environment is there, and what a run would be told of it is more than an event holds."""
    return Failure(
        "your-spec",
        "env.too_large",
        f"What runs have to be told of this environment is too much ({error.message}). Fewer "
        "variables, or shorter ones, of the definition, its image and its packages make it less.",
        retryable=False,
    )


def timed_out(phase: Phase, limit_s: float) -> Failure:
    """A phase took longer than its limit."""
    return Failure(
        "timeout",
        "env.build_timeout",
        f"The environment's {_PHASE_NAMES[phase]} took longer than {limit_s:g} s and was ended. "
        "Try again; if it happens again, the operator can raise the limit.",
        retryable=True,
    )


def too_many_files(limit: int) -> Failure:
    """What was installed is more than an environment."""
    return _your_spec(
        "env.too_many_files",
        f"The packages have more than {limit} files, which is the limit of an environment. Leave "
        "out the one that carries data, and make a dataset of those.",
        "",
    )


def removing_name(path: str) -> Failure:
    """A package has a name that an image's layer cannot hold."""
    return _your_spec(
        "env.file_name",
        f"A package has a file {redact(path)[:_MAX_NAME]!r}: in an image a name that begins with "
        "'.wh.' takes another file away. Choose another version of the package, or leave it out.",
        "",
    )


def classify(phase: Phase, returncode: int, output: str) -> Failure:
    """What a step that ended with ``returncode`` after ``output`` means."""
    words = _own_words(output)
    if NO_SPACE.search(output):
        return Failure(
            "disk-full",
            "env.disk_full",
            "The disk of the environment cache is full. The operator has to free space there.",
            retryable=True,
        )
    if NO_CONTAINER in output:
        return Failure(
            "internal",
            "env.engine_unreachable",
            f"The environment's {_PHASE_NAMES[phase]} needs a container, and the Docker engine "
            "gave none; tell the operator.",
            retryable=True,
        )
    if returncode < 0 or returncode > 128:
        number = -returncode if returncode < 0 else returncode - 128
        return Failure(
            "killed",
            "env.build_killed",
            f"The environment's {_PHASE_NAMES[phase]} was killed from outside "
            f"(signal {number}), often for lack of memory.",
            retryable=True,
        )
    if phase in {"resolve", "install"}:
        return _of_installer(words)
    return _internal(phase, returncode)


def _of_installer(words: str) -> Failure:
    if mismatch := re.search(r"Hash mismatch for `([^`]+)`", words):
        return Failure(
            "hash-mismatch",
            "env.hash_mismatch",
            f"The package index delivered other files for {mismatch[1]} than the lock names. "
            "Nothing was installed; tell the operator of the index.",
            retryable=False,
        )
    if "building from source is disabled" in words:
        return _your_spec(
            "env.sdist_disallowed",
            "Only wheels are installed here, and a package has none that fits. Choose a version "
            "that has one, or another package.",
            words,
        )
    if "No solution found" in words:
        return _your_spec(
            "env.unsatisfiable",
            "These requirements cannot be met together. Loosen or correct the pins named here.",
            words,
        )
    if "parse requirement" in words:
        return _your_spec("env.requirement", "A requirement could not be read.", words)
    if _NO_ANSWER.search(words):
        return Failure(
            "index-unreachable",
            "env.index_unreachable",
            "The package index did not answer. Try again later, or ask the operator: "
            f"`stellwerk doctor` looks at network, proxy and index.\n{words}",
            retryable=True,
        )
    if _BAD_WHEEL.search(words):
        return _your_spec(
            "env.wheel_invalid", "A package file is broken. Choose another version of it.", words
        )
    return Failure(
        "internal",
        "env.build_failed",
        f"The installer gave up.\n{words}",
        retryable=False,
    )


def _your_spec(code: str, hint: str, words: str) -> Failure:
    return Failure("your-spec", code, f"{hint}\n{words}".rstrip(), retryable=False)


def _internal(phase: Phase, returncode: int) -> Failure:
    return Failure(
        "internal",
        "env.build_failed",
        f"The environment's {_PHASE_NAMES[phase]} failed with status {returncode}; the build log "
        "says more.",
        retryable=False,
    )


def _own_words(output: str) -> str:
    """From the first error on, without the tool's layout, shortened."""
    start = output.find("error:")
    lines = (_LABEL.sub("", line).strip() for line in output[max(start, 0) :].splitlines())
    words = _UNPACKED.sub("", redact("\n".join(filter(None, lines))))
    return words if len(words) <= _MAX_WORDS else words[:_MAX_WORDS] + " …"


_PHASE_NAMES: dict[Phase, str] = {
    "resolve": "resolution",
    "create": "creation",
    "install": "installation",
    "compile": "compilation",
    "activate": "activation",
}
