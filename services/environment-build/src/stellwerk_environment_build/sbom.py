"""The software bill of materials of an environment: CycloneDX 1.6, JSON.

It is made from what lies in the environment and from its lock, so that it names the very files:
packages of the index with the licence they state, packages of conda channels with their channel
and SHA-256, the interpreter, and who needs whom.
"""

import json
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from stellwerk_environment_build.conda_lock import CondaEntry
from stellwerk_environment_build.inspection import Distribution, Lock, distributions

_PIN = re.compile(
    r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)[^\n]*((?:\n[ \t]+--hash=\S+[^\n]*)*)", re.MULTILINE
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_LONGEST_LICENCE = 100


@dataclass(frozen=True)
class About:
    """What an environment is, beside its files."""

    env_id: str
    python: str
    platform: str
    builder_version: str
    built_at: datetime


def make_sbom(environment: Path, lock: Lock, about: About) -> str:
    """The document for what is installed in the folder ``environment``."""
    installed: dict[str, Distribution] = {each.name: each for each in distributions(environment)}
    hashes = _hashes(lock)
    named: dict[str, list[Component]] = {}  # conda's a-b and a_b are two packages of one name
    for entry in lock.conda:
        named.setdefault(canonicalize_name(entry.name), []).append(_of_conda(entry, environment))
    if "python" not in named:
        named["python"] = [_interpreter(about.python)]
    for pin in lock.pins:
        title, _, version = pin.partition("==")
        name = canonicalize_name(title)
        found = installed.get(name) or Distribution(name, version, None, ())
        named[name] = [_of_index(found, hashes.get(name, ()))]
    components = [each for same in named.values() for each in same]
    root = Component(
        name=about.env_id, type=ComponentType.APPLICATION, bom_ref=f"environment/{about.env_id}"
    )
    builder = Component(
        name="stellwerk-environment-build",
        version=about.builder_version,
        type=ComponentType.APPLICATION,
        bom_ref="builder",
    )
    bom = Bom(
        components=components,
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, f"{about.env_id}/{lock.digest}"),
        metadata=BomMetaData(
            component=root,
            timestamp=about.built_at,
            properties=[
                Property(name="stellwerk:lock", value=lock.digest),
                Property(name="stellwerk:platform", value=about.platform),
            ],
        ),
    )
    bom.metadata.tools.components.add(builder)
    bom.register_dependency(root, components)
    for title, same in named.items():
        needs = list(_needs(installed.get(title), about.python))
        for component in same:
            bom.register_dependency(
                component, [each for need in needs for each in named.get(need, ())]
            )
    return str(JsonV1Dot6(bom).output_as_string(indent=1))


def _of_index(found: Distribution, hashes: Iterable[str]) -> Component:
    only = tuple(hashes)
    return Component(
        name=found.name,
        version=found.version,
        bom_ref=f"pkg:pypi/{found.name}@{found.version}",
        purl=PackageURL("pypi", None, found.name, found.version),
        licenses=_licences(found.licence),
        hashes=_sha256(only[0]) if len(only) == 1 else (),
    )


def _of_conda(entry: CondaEntry, environment: Path) -> Component:
    meta = environment / "conda-meta" / f"{entry.title.replace('=', '-')}.json"
    licence = json.loads(meta.read_bytes()).get("license") if meta.exists() else None
    build = entry.title.rpartition("=")[2]
    where = {"build": build, "channel": entry.channel, "subdir": entry.subdir}
    purl = PackageURL("conda", None, entry.name, entry.version, qualifiers=where)
    return Component(
        name=entry.name,
        version=entry.version,
        bom_ref=str(purl),
        purl=purl,
        licenses=_licences(licence),
        hashes=_sha256(entry.sha256),
    )


def _interpreter(version: str) -> Component:
    purl = PackageURL("generic", None, "python", version)
    return Component(
        name="python",
        version=version,
        type=ComponentType.PLATFORM,
        bom_ref=str(purl),
        purl=purl,
        licenses=_licences("PSF-2.0"),
    )


def _licences(text: str | None) -> list[License]:
    first = (text or "").strip().partition("\n")[0][:_LONGEST_LICENCE].strip()
    return [LicenseFactory().make_from_string(first)] if first else []


def _sha256(digest: str) -> tuple[HashType]:
    return (HashType(alg=HashAlgorithm.SHA_256, content=digest),)


def _hashes(lock: Lock) -> dict[str, tuple[str, ...]]:
    """The files a lock allows for each package; which of several it was is not recorded."""
    return {
        canonicalize_name(name): tuple(_HASH.findall(listed))
        for name, _, listed in _PIN.findall(lock.text)
    }


def _needs(found: Distribution | None, python: str) -> Iterator[str]:
    minor = ".".join(python.split(".")[:2])
    here = {"python_version": minor, "python_full_version": python, "extra": ""}
    for text in found.requires if found else ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:  # of a package older than the rules
            continue
        if requirement.marker is None or _holds(requirement.marker, here):
            yield canonicalize_name(requirement.name)


def _holds(marker: Marker, here: dict[str, str]) -> bool:
    try:
        return marker.evaluate(here)
    except (ValueError, TypeError, KeyError):  # sys_platform ~= "linux" has no meaning
        return True
