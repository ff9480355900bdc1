"""Why an image could not be made: whose fault it is, and what to tell. Pure."""

import re
from typing import Literal

from stellwerk_environment_build.failures import NO_SPACE, Failure, redact

Step = Literal["engine", "base", "python", "make", "killed", "push"]

_LOGIN = re.compile(
    r"unauthorized|no basic auth|authentication required|incorrect username or password"
    r"|\b401\b|\b403\b|denied: requested access",
    re.IGNORECASE,
)
_MISSING = re.compile(
    r"not found|manifest unknown|does not exist|no such image|name unknown|pull access denied"
    r"|invalid reference|denied",
    re.IGNORECASE,
)
_NO_NETWORK = re.compile(
    r"name resolution|Could not resolve|Name or service not known|Network is unreachable"
    r"|getaddrinfo|bad address|No route to host|nodename nor servname|unable to resolve host"
    r"|Temporary failure resolving",
    re.IGNORECASE,
)
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
_SHOWN_WORDS = 1000
_INSTEAD = (
    "List packages in the environment (the platform installs them), bring files along in a build "
    "context, or ask the operator for STELLWERK_BUILD_NETWORK."
)


def of_image(step: Step, words: str = "") -> Failure:
    """What it means that ``step`` failed with the engine's ``words``."""
    if _full(words):
        return _disk_full()
    if step == "killed":
        return Failure(
            "killed",
            "env.build_killed",
            "The making of the image was killed from outside, often for lack of memory.",
            retryable=True,
        )
    if step == "push" and not _LOGIN.search(words) and "denied" not in words.lower():
        return Failure(
            "index-unreachable",
            "env.registry_unreachable",
            f"The registry did not take the image. Try again later.\n{redact(words)[:300]}",
            retryable=True,
        )
    code, message = _OPERATOR["login" if step == "push" else step]
    return Failure("internal", code, f"{message}; tell the operator.", retryable=step == "engine")


def of_pull(image: str, words: str) -> Failure:
    """What it means that an image of a definition cannot be had."""
    if _full(words):
        return _disk_full()
    said = redact(words)[:300]
    if _LOGIN.search(words):
        return Failure(
            "internal",
            "env.registry_denied",
            f"The registry does not give image {image} to this platform. The operator adds a login "
            f"for it to STELLWERK_REGISTRY_CREDENTIALS.\n{said}",
            retryable=False,
        )
    if _MISSING.search(words):
        return _your_spec(
            "env.image_not_found",
            f"There is no image {image}, or it is not public. Correct its name, tag or digest.",
            said,
        )
    return Failure(
        "index-unreachable",
        "env.registry_unreachable",
        f"The registry of image {image} did not answer. Try again later.\n{said}",
        retryable=True,
    )


def of_dockerfile(words: str, *, network: bool) -> Failure:
    """What it means that a Dockerfile's build ended with ``words``.

    ``network``: its steps had one.
    """
    said = _end_of(redact(words))
    if _full(words):
        return Failure(
            "disk-full",
            "env.disk_full",
            "A step of the Dockerfile found its disk full. If it wrote much, let it write less; "
            f"else the operator has to free space for the Docker engine.\n{said}",
            retryable=True,
        )
    if _NO_NETWORK.search(words):
        if network:
            return Failure(
                "index-unreachable",
                "env.dockerfile_network",
                f"A step of the Dockerfile did not reach its host. Try again later.\n{said}",
                retryable=True,
            )
        return _your_spec(
            "env.dockerfile_network",
            f"A step of the Dockerfile wants the network, and builds have none here. {_INSTEAD}",
            said,
        )
    if re.search(r"(?:returned a non-zero code|exit code): 137\b", words):
        return Failure(
            "killed",
            "env.build_killed",
            f"A step of the Dockerfile was killed from outside, often for lack of memory.\n{said}",
            retryable=True,
        )
    return _your_spec("env.dockerfile_failed", "The Dockerfile does not build.", said)


def fetches(line: int, text: str) -> Failure:
    """An ADD that the engine would fetch for a build without a network."""
    return _your_spec(
        "env.dockerfile_network",
        f"dockerfile: line {line} has ADD fetch its source, or name it by a variable, and builds "
        f"have no network here. {_INSTEAD}",
        redact(text)[:_SHOWN_WORDS],
    )


def copies(line: int, keyword: str, image: str) -> Failure:
    """What the engine would fetch an image for, for a build without a network."""
    name = redact(image)[:100]
    where = f"{keyword} --{'mount=from' if keyword == 'RUN' else 'from'}="
    return _your_spec(
        "env.dockerfile_network",
        f"dockerfile: line {line} has {where}{name}, which is no earlier stage, and builds "
        "have no network here. Give the image a stage of its own, which is pulled before the "
        f"build: FROM {name} AS tools above, and {where}tools.",
        "",
    )


def needs_buildkit(line: int, what: str, why: str) -> Failure:
    """What only BuildKit knows, where there is none for it."""
    return _your_spec(
        "env.dockerfile",
        f"dockerfile: line {line} has {what}. Only BuildKit builds that, and {why}. Write it "
        "without, or ask the operator.",
        "",
    )


def unnamed(image: str, where: str) -> Failure:
    """An image that BuildKit cannot find by what it is called."""
    return _your_spec(
        "env.dockerfile",
        f"dockerfile: BuildKit finds no image {redact(image)[:100]} {where}, since that is a "
        "variable or an id. Write name:tag or name@sha256:….",
        "",
    )


def wrote_too_much(limit_bytes: int) -> Failure:
    """The disk lost too much during a build; another one may have written part of it."""
    return Failure(
        "disk-full",
        "env.disk_full",
        f"The engine's disk lost more than {limit_bytes / 1e9:g} GB while BuildKit built the "
        "Dockerfile, so the build was ended. Let its steps write less, or ask the operator to "
        "raise STELLWERK_BUILD_IMAGE_BYTES; if others wrote it, try again.",
        retryable=True,
    )


def memory_short() -> Failure:
    """The machine had hardly any memory left during a build."""
    return Failure(
        "killed",
        "env.build_killed",
        "The engine's machine had hardly any memory left while BuildKit built the Dockerfile, so "
        "the build was ended. Let its steps take less, or try again later.",
        retryable=True,
    )


def too_large(limit_bytes: int) -> Failure:
    """A step wrote more than it may."""
    return _your_spec(
        "env.image_too_large",
        f"A step of the Dockerfile wrote more than {limit_bytes / 1e9:g} GB and was ended. Let it "
        "write less, or ask the operator to raise STELLWERK_BUILD_IMAGE_BYTES.",
        "",
    )


def unwatched(image: str, why: str) -> Failure:
    """A base that no build under watch can begin with."""
    return _your_spec(
        "env.dockerfile",
        f"dockerfile: image {image} {why}, which builds here cannot bound. Take a base without, "
        "and write such steps into the Dockerfile.",
        "",
    )


def ignore_file(name: str, why: str) -> Failure:
    """What a build's folder is not to have is not told in a way that can be used."""
    return _your_spec("env.build_context", f"build_context: {name} {why}.", "")


def no_python(why: str) -> Failure:
    """An image that no run can begin in."""
    return _your_spec(
        "env.image_python",
        f"The image {why}. A run begins with the image's own python3 (3.8 or newer, on its PATH, "
        "usable by every user); install one in it.",
        "",
    )


def took_too_long(limit_s: float) -> Failure:
    """The making of the image took longer than its limit."""
    return Failure(
        "timeout",
        "env.build_timeout",
        f"The making of the image took longer than {limit_s:g} s and was ended. "
        "Try again; if it happens again, the operator can raise the limit.",
        retryable=True,
    )


def _full(words: str) -> bool:
    """The engine writes it in small letters."""
    return NO_SPACE.search(words) is not None or "no space left on device" in words.lower()


def _end_of(words: str) -> str:
    """Whole lines from the end, as many as can be shown."""
    lines: list[str] = []
    room = _SHOWN_WORDS
    for line in reversed(words.splitlines()):
        room -= len(line) + 1
        if room < 0 and lines:
            break
        lines.append(line[:_SHOWN_WORDS])
    return "\n".join(reversed(lines))


def _disk_full() -> Failure:
    return Failure(
        "disk-full",
        "env.disk_full",
        "The disk of the Docker engine is full. The operator has to free space there.",
        retryable=True,
    )


def _your_spec(code: str, hint: str, words: str) -> Failure:
    return Failure("your-spec", code, f"{hint}\n{words}".rstrip(), retryable=False)
