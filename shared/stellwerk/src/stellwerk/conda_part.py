"""What a conda solver is asked for: channels by name, a Python, packages in one spelling. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from packaging.specifiers import SpecifierSet
from pydantic import BaseModel, ConfigDict

from stellwerk.conda_package import conda_versions
from stellwerk.environment_python import choose_python, python_range
from stellwerk.environment_requirement import InvalidEnvironment
from stellwerk.override_apply import Substitution

DEFAULT_CHANNEL = "conda-forge"
_VENDORS = frozenset({"anaconda", "defaults", "free", "main", "msys2", "r"})
_NOT_A_CHANNEL = "nodefaults"
_MINORS = tuple(f"3.{minor}" for minor in range(6, 15))
_PATCHES = 40


class CondaPart(BaseModel):
    """Channels, the first before the others; canonical package specs, ``python`` among them.

    ``cuda``: whether packages may be chosen that need an NVIDIA GPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[str, ...]
    packages: tuple[str, ...]
    cuda: bool = False


@dataclass(frozen=True)
class KnownChannels:
    """Addresses an operator gave to channels, by name; beside them only conda-forge is used."""

    addresses: Mapping[str, str] = field(default_factory=dict)


class CondaPython(NamedTuple):
    """``versions`` for the solver, all of them of ``minor``; ``reason`` why not what was wanted."""

    versions: str
    minor: str
    reason: str


def choose_channels(
    wanted: Sequence[str], known: KnownChannels
) -> tuple[tuple[str, ...], tuple[Substitution, ...]]:
    """The channels by name, and which were exchanged. Raises InvalidEnvironment (env.channel)."""
    chosen, exchanged = [], []
    for index, written in enumerate(wanted):
        if written.strip() == _NOT_A_CHANNEL:
            continue
        name, renamed = choose_channel(written, known, f"channels[{index}]")
        chosen.append(name)
        exchanged += [renamed] if renamed else []
    return tuple(dict.fromkeys(chosen)) or (DEFAULT_CHANNEL,), tuple(exchanged)


def choose_channel(
    written: str, known: KnownChannels, where: str
) -> tuple[str, Substitution | None]:
    """One channel by name, and whether it was exchanged. Raises InvalidEnvironment (env.channel).

    Packages of a channel bring the interpreter that builds on them, so which channels are trusted
    is the operator's to say: conda-forge and those with an address.
    """
    text = written.strip().rstrip("/")
    by_address = {address.rstrip("/"): name for name, address in known.addresses.items()}
    name = by_address.get(text, text)
    if name in known.addresses or name == DEFAULT_CHANNEL:
        return name, None
    if name in _VENDORS:
        why = "the vendor's own channels need a licence in many companies"
        return DEFAULT_CHANNEL, Substitution(f"channel {name}", DEFAULT_CHANNEL, why)
    listed = ", ".join(dict.fromkeys((DEFAULT_CHANNEL, *sorted(known.addresses))))
    raise InvalidEnvironment(
        "env.channel",
        field=where,
        got=written,
        hint=f"Channels here are by name: {listed}. For another one ask the operator to add it to "
        "STELLWERK_BUILD_CHANNELS.",
    )


def choose_conda_python(
    wanted: str | None, machine: Sequence[str], *, sdk: str | None = None
) -> CondaPython:
    """A Python from the channels: what was wanted, of the machine's minor version if that fits.

    ``sdk``: versions that the SDK runs on, if the environment has to hold it. Where it rules out
    what was wanted, the nearest minor version is taken.
    """
    suitable = SpecifierSet(sdk or "")
    possible = [minor for minor in _MINORS if suitable.contains(f"{minor}.{_PATCHES}")]
    allowed = python_range(wanted) if wanted is not None else SpecifierSet()
    fitting = [
        minor
        for minor in possible
        if any(allowed.contains(f"{minor}.{patch}") for patch in range(_PATCHES))
    ]
    if not fitting:
        nearest, _ = choose_python(wanted, [f"{minor}.0" for minor in _MINORS], sdk=sdk)
        minor = ".".join(nearest.split(".")[:2])
        reason = f"Pythons from {_MINORS[0]} to {_MINORS[-1]} can be had"
        if sdk is not None:
            reason = f"the SDK inside a run needs Python {sdk}"
        return CondaPython(f"{minor}.*", minor, reason)
    of_machine = (".".join(version.split(".")[:2]) for version in machine)
    minor = next((each for each in of_machine if each in fitting), fitting[-1])
    return CondaPython(conda_versions(allowed & SpecifierSet(f"=={minor}.*")), minor, "")
