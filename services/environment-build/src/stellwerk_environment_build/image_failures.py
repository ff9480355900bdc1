"""Why an image could not be made: whose fault it is, and what to tell. Pure."""

import re
from typing import Literal

from stellwerk_environment_build.failures import NO_SPACE, Failure, redact

Step = Literal["engine", "base", "python", "make", "killed", "push"]

_LOGIN = re.compile(r"unauthorized|denied|no basic auth|authentication required", re.IGNORECASE)
_OPERATOR = {
    "engine": ("env.engine_unreachable", "The Docker engine that makes images does not answer"),
    "base": (
        "env.base_image",
        "The base image (STELLWERK_BASE_IMAGE) is not here, nor to be pulled",
    ),
    "python": ("env.base_python", "The base image (STELLWERK_BASE_IMAGE) lacks this Python"),
    "make": ("env.image", "The Docker engine could not make the image"),
    "login": ("env.registry_denied", "The registry refuses STELLWERK_REGISTRY_CREDENTIALS"),
}


def of_image(step: Step, words: str = "") -> Failure:
    """What it means that ``step`` failed with the engine's ``words``."""
    if NO_SPACE.search(words):
        return Failure(
            "disk-full",
            "env.disk_full",
            "The disk of the Docker engine is full. The operator has to free space there.",
            retryable=True,
        )
    if step == "killed":
        return Failure(
            "killed",
            "env.build_killed",
            "The making of the image was killed from outside, often for lack of memory.",
            retryable=True,
        )
    if step == "push" and not _LOGIN.search(words):
        return Failure(
            "index-unreachable",
            "env.registry_unreachable",
            f"The registry did not take the image. Try again later.\n{redact(words)[:300]}",
            retryable=True,
        )
    code, message = _OPERATOR["login" if step == "push" else step]
    return Failure("internal", code, f"{message}; tell the operator.", retryable=step == "engine")


def took_too_long(limit_s: float) -> Failure:
    """The making of the image took longer than its limit."""
    return Failure(
        "timeout",
        "env.build_timeout",
        f"The making of the image took longer than {limit_s:g} s and was ended. "
        "Try again; if it happens again, the operator can raise the limit.",
        retryable=True,
    )
