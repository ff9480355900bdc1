"""Command lines of uv and of the compiler, and the environment they run in. Pure.

uv gets an environment made of an explicit list, so that nobody's shell changes what is built.
What an operator configured about the package index is passed on; all else that would change a
result is not.
"""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uv

from stellwerk_environment_build import compile_worker

# Ours -> the variables it may come from, first one wins.
_PASSED = {
    "UV_DEFAULT_INDEX": ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"),
    "UV_INDEX": ("UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
    "UV_FIND_LINKS": ("UV_FIND_LINKS",),
    "UV_HTTP_TIMEOUT": ("UV_HTTP_TIMEOUT",),
    "UV_HTTP_RETRIES": ("UV_HTTP_RETRIES",),
    "UV_CONCURRENT_DOWNLOADS": ("UV_CONCURRENT_DOWNLOADS",),
    "UV_SYSTEM_CERTS": ("UV_SYSTEM_CERTS", "UV_NATIVE_TLS"),
    "SSL_CERT_FILE": ("SSL_CERT_FILE", "PIP_CERT"),
    "SSL_CERT_DIR": ("SSL_CERT_DIR",),
    "HTTP_PROXY": ("HTTP_PROXY", "http_proxy"),
    "HTTPS_PROXY": ("HTTPS_PROXY", "https_proxy"),
    "ALL_PROXY": ("ALL_PROXY", "all_proxy"),
    "NO_PROXY": ("NO_PROXY", "no_proxy"),
    "RATTLER_AUTH_FILE": ("RATTLER_AUTH_FILE",),  # logins of conda channels
    "HOME": ("HOME",),
}
_ASKED_AGAIN = re.compile(r"WARN Retry attempt #(\d+)\.")
_PASSWORD = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
_SHORTEST_SECRET = 4


@dataclass(frozen=True)
class IndexOptions:
    """Sources beside the configured index; ``no_index``: instead of it."""

    find_links: tuple[Path, ...] = ()
    no_index: bool = False
    allow_sdist: bool = False


def uv_binary() -> str:
    """Path of the uv that belongs to this installation."""
    return uv.find_uv_bin()


def uv_environment(
    environ: Mapping[str, str], *, cache: Path, config_file: Path | None
) -> dict[str, str]:
    """The environment of every uv process, from this process's ``environ``."""
    passed = {
        ours: next(environ[name] for name in names if environ.get(name))
        for ours, names in _PASSED.items()
        if any(environ.get(name) for name in names)
    }
    configured = {"UV_CONFIG_FILE": str(config_file)} if config_file else {"UV_NO_CONFIG": "1"}
    return {
        "PATH": environ.get("PATH", os.defpath),
        "LC_ALL": "C.UTF-8",
        **passed,
        **configured,
        "UV_CACHE_DIR": str(cache),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_INDEX_STRATEGY": "first-index",
        "RUST_LOG": "reqwest_retry=warn",  # else it is silent until it gives up
    }


def asked_again(line: str) -> int | None:
    """How often uv has asked the index again, where a line of its output says that it does."""
    found = _ASKED_AGAIN.match(line)
    return None if found is None else int(found[1]) + 1


def bare_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of what runs an interpreter that was installed: no login, no address."""
    return {"PATH": environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}


def bare_interpreter(python: Path) -> str:
    """A script that starts ``python`` without the environment of who asks it what it is."""
    return f'#!/bin/sh\nexec env -i LC_ALL=C.UTF-8 {shlex.quote(str(python))} "$@"\n'


def operator_config(environ: Mapping[str, str]) -> Path | None:
    """The tool's own configuration file of this user or machine; one of a project is never used."""
    home = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/"), ".config"))
    chosen = environ.get("UV_CONFIG_FILE")
    places = [Path(chosen)] if chosen else [home / "uv/uv.toml", Path("/etc/uv/uv.toml")]
    return next((place for place in places if place.is_file()), None)


def proxies_in(environ: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables, under the names that the Docker engine keeps out of images."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    return {
        name: value for name in names if (value := environ.get(name) or environ.get(name.lower()))
    }


def secrets_in(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Passwords inside addresses of ``environ``: texts that must not reach a log."""
    found = {match[1] for text in environ.values() for match in _PASSWORD.finditer(text)}
    return tuple(sorted(secret for secret in found if len(secret) >= _SHORTEST_SECRET))


def resolve_command(
    wanted: Path,
    lock: Path,
    python: Path,
    options: IndexOptions,
    pins: Path | None = None,
    version: str | None = None,
) -> list[str]:
    """Write the lock of the requirements in ``wanted``: exact pins with hashes, no hosts.

    ``pins``: a file of versions for whatever is needed of them. ``version``: for that Python
    instead of ``python``'s own.
    """
    return [
        *_uv("pip", "compile", str(wanted)),
        *("--output-file", str(lock), "--python", str(python), "--generate-hashes"),
        *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-sources"),
        *(("--constraint", str(pins)) if pins else ()),
        *_foreign(version),
        *_index(options),
    ]


def create_command(target: Path, python: Path) -> list[str]:
    """An empty virtual environment that may be moved."""
    return _uv("venv", "--relocatable", "--no-project", "--python", str(python), str(target))


def install_command(lock: Path, python: Path, options: IndexOptions) -> list[str]:
    """Exactly the locked files into the environment of ``python``."""
    return [
        *_uv("pip", "sync", str(lock), "--python", str(python), "--require-hashes"),
        *_index(options),
    ]


def lay_aside_command(
    lock: Path, python: Path, options: IndexOptions, folder: Path, version: str
) -> list[str]:
    """Exactly the locked files into ``folder``, for another Python of this kind of machine."""
    return [
        *_uv("pip", "sync", str(lock), "--python", str(python), "--require-hashes"),
        *("--target", str(folder), *_foreign(version)),
        *_index(options),
    ]


def plan_command(wanted: Path, python: Path, options: IndexOptions, pins: Path | None) -> list[str]:
    """Say what the requirements in ``wanted`` add to and replace in a conda environment."""
    return [
        *_uv("pip", "install", "--dry-run", "--requirements", str(wanted)),
        *("--python", str(python), "--break-system-packages", "--no-sources"),
        *(("--constraint", str(pins)) if pins else ()),
        *_index(options),
    ]


def lock_command(
    chosen: Path, excluded: Path, lock: Path, python: Path, options: IndexOptions
) -> list[str]:
    """The lock of the pins in ``chosen``; packages in ``excluded`` are there already.

    Without dependencies at all the installer would leave out the hashes.
    """
    return [*resolve_command(chosen, lock, python, options), "--excludes", str(excluded)]


def add_command(lock: Path, python: Path, options: IndexOptions) -> list[str]:
    """Exactly the locked files on top of what the conda environment of ``python`` holds.

    Copied: what is compiled by a channel's interpreter must not be what other environments have.
    """
    return [
        *_uv("pip", "install", "--requirements", str(lock), "--python", str(python)),
        *("--no-deps", "--require-hashes", "--break-system-packages", "--link-mode", "copy"),
        *_index(options),
    ]


def compile_command(python: Path, listing: Path, workers: int) -> list[str]:
    """Byte-compile the modules in ``listing``.

    Not by the installer: it would start the environment's interpreter with ``site``, and so run
    the ``.pth`` code of the packages outside any run, in an environment that may hold credentials.
    What the interpreter itself imports meanwhile stays as its package has it.
    """
    return [str(python), "-I", "-S", "-B", compile_worker.__file__, str(listing), str(workers)]


def _uv(*words: str) -> list[str]:
    return [uv_binary(), *words, "--color", "never", "--no-progress"]


def _foreign(version: str | None) -> Sequence[str]:
    return ("--python-version", version) if version else ()


def _index(options: IndexOptions) -> Sequence[str]:
    words = [word for folder in options.find_links for word in ("--find-links", str(folder))]
    if options.no_index:
        words.append("--no-index")
    if not options.allow_sdist:
        words += ["--only-binary", ":all:"]
    return words
