"""What becomes of requirements and web addresses: the same tables that builds and fetches use."""

import json
import platform
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources

from stellwerk.environment_spec import (
    EnvironmentDefinition,
    InvalidEnvironment,
    from_conda_yaml,
    from_packages,
    from_requirements,
    normalise,
)
from stellwerk.migration.stub import Mark
from stellwerk.migration.usage import Use
from stellwerk.override_table import builtin

_ADDRESS = re.compile(r"https?://[^\s\"'<>)\]}\\]+")
_CONDA = re.compile(r"^dependencies\s*:", re.MULTILINE)


def of_file(path: str, text: str) -> Iterator[Use]:
    """Exchanges in a conda or requirements file; nothing for any other file."""
    name = path.rpartition("/")[2].lower()
    try:
        if name.endswith(".txt"):
            yield from _exchanged(from_requirements(text), "")
        elif _CONDA.search(text):
            yield from _exchanged(from_conda_yaml(text), "")
    except InvalidEnvironment as error:
        yield Use("environment", Mark("not supported", str(error)), "")


def of_packages(packages: Iterable[tuple[str, str]]) -> Iterator[Use]:
    """Exchanges among requirements that code names; conda's ``=`` counts as ``==``."""
    listed = list(packages)
    if not listed:
        return
    texts = [re.sub(r"(?<![=<>!~])=(?!=)", "==", text) for text, _ in listed]
    try:
        yield from _exchanged(from_packages(texts), listed[0][1])
    except InvalidEnvironment as error:
        yield Use("packages", Mark("not supported", str(error)), listed[0][1])


def of_curated(names: Iterable[tuple[str, str]]) -> Iterator[Use]:
    """Curated environments; other names are those of registered ones."""
    for name, where in names:
        packages = builtin().curated_packages(name)
        if packages is not None:
            note = f"an environment with {', '.join(packages)}"
            yield Use(f"environment {name}", Mark("substituted", note), where)


def of_addresses(text: str) -> Iterator[Use]:
    """Addresses whose host is gone and that are read from elsewhere."""
    for address in dict.fromkeys(_ADDRESS.findall(text)):
        for prefix, rule in _rewritten().items():
            if address.startswith(prefix):
                note = f"read from the platform's copy ({rule})"
                yield Use(address, Mark("substituted", note), "")


def _exchanged(definition: EnvironmentDefinition, where: str) -> Iterator[Use]:
    spec = normalise(definition, available_pythons=[platform.python_version()])
    for warning in spec.warnings:
        symbol, _, rest = warning.partition(" -> ")
        became, colon, why = rest.partition(": ")
        if not rest:
            yield Use("environment", Mark("substituted", warning), where)
        else:
            yield Use(symbol, Mark("substituted", f"{became}{colon}{why}"), where)


@cache
def _rewritten() -> dict[str, str]:
    """Prefix → name of its rule."""
    content = json.loads(resources.files("stellwerk").joinpath("rewrites.json").read_text())
    return {prefix: rule["name"] for rule in content["rules"] for prefix in rule["prefixes"]}
