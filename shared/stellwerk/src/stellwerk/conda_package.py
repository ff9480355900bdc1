"""One conda package spec: what it means, its one spelling, and its counterpart on the index. Pure.

A spec is ``name``, ``name=1.2`` (1.2 and everything below it), ``name==1.2.3``, ``name>=1.2,<2`` or
``name=1.2.3=build``, with ``channel::`` before it if it has to come from there. Versions that
conda knows and the Python package index does not (``openssl=1.1.1w``) are kept as they are written.
"""

import re
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from stellwerk.environment_names import CONDA_BUILT_IN, CONDA_SYSTEM, CONDA_TO_INDEX
from stellwerk.environment_requirement import InvalidEnvironment, canonical_specifier

_SPEC = re.compile(
    r"^(?:(?P<channel>[A-Za-z0-9_./-]+)::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)\s*(?P<rest>.*)$"
)
_EXACT_OR_PREFIX = re.compile(
    r"^(?P<equal>==?|(?=\d))\s*(?P<version>[^\s=<>!~,|]+)(\s*(=|\s)\s*(?P<build>[\w.*]+))?$"
)
_OF_CONDA_ALONE = re.compile(r"^[\w.*+!<>=~,|-]+$")


@dataclass(frozen=True)
class CondaPackage:
    """One spec. ``name`` is canonical, ``own_name`` what conda calls it.

    ``versions`` is in PEP 440 form; None where only conda understands them: ``own_versions`` then.
    """

    name: str
    own_name: str
    versions: str | None
    own_versions: str = ""
    build: str | None = None
    channel: str | None = None

    @property
    def spec(self) -> str:
        """The canonical spelling, as a conda solver reads it."""
        versions = self.own_versions
        if self.versions is not None:
            versions = conda_versions(SpecifierSet(self.versions))
        place = f"{self.channel}::" if self.channel else ""
        if self.build and not versions:
            versions = "*"
        return " ".join(filter(None, (place + self.own_name, versions, self.build)))


def parse_conda_package(spec: str, where: str) -> CondaPackage:
    """``spec`` taken apart. Raises InvalidEnvironment (env.conda_package)."""
    match = _SPEC.match(spec.strip())
    if match is None:
        raise _not_a_package(spec, where)
    own_name, rest = match["name"].lower(), match["rest"].strip()
    build = None
    if exact := _EXACT_OR_PREFIX.match(rest):
        version, build = exact["version"], exact["build"]
        fuzzy = exact["equal"] == "=" and build is None and not version.endswith("*")
        rest = f"=={version}.*" if fuzzy else f"=={version}"
    name = canonicalize_name(own_name)
    compact = re.sub(r"\s*([<>=!~,|]+)\s*", r"\1", rest)
    try:
        requirement = Requirement(name + rest)
    except InvalidRequirement as error:
        if not _OF_CONDA_ALONE.match(compact) or "://" in spec:
            raise _not_a_package(spec, where) from error
        own = compact.removeprefix("==") if compact.endswith(".*") else compact
        return CondaPackage(name, own_name, None, own, build, match["channel"])
    if requirement.extras or requirement.marker or requirement.url:
        raise _not_a_package(spec, where)
    return CondaPackage(name, own_name, str(requirement.specifier), "", build, match["channel"])


def conda_versions(versions: SpecifierSet) -> str:
    """PEP 440 versions in conda's words, sorted: ``==1.2.*`` is ``1.2.*`` there."""
    spelled = {canonical_specifier(each) for each in versions}
    return ",".join(
        sorted(each.removeprefix("==") if each.endswith(".*") else each for each in spelled)
    )


def index_requirement(package: CondaPackage, where: str) -> Requirement | None:
    """The same package on the Python package index; None for built-in ones and system libraries.

    Raises InvalidEnvironment (env.conda_package) where there is no such package.
    """
    if package.name in CONDA_BUILT_IN | CONDA_SYSTEM:
        return None
    if package.versions is None:
        raise _not_a_package(package.own_name + package.own_versions, where)
    name = CONDA_TO_INDEX.get(package.name)
    if is_platforms(package):
        name = package.name
    if name is None:
        raise InvalidEnvironment(
            "env.conda_package",
            field=where,
            got=package.name + package.versions,
            hint="No conda channel can be reached here, so conda packages are installed from the "
            "Python package index, and this one has no known counterpart. Move it to the pip "
            "section under its index name, or remove it if it is a system library.",
        )
    return Requirement(name + package.versions)


def is_platforms(package: CondaPackage) -> bool:
    """Whether the platform stands for it, whatever it was installed with."""
    return package.name.startswith("azureml-")


def _not_a_package(spec: str, where: str) -> InvalidEnvironment:
    return InvalidEnvironment(
        "env.conda_package",
        field=where,
        got=spec,
        hint="This is not a conda package spec that is understood; write name, name=1.2, "
        "name==1.2.3 or name>=1.2,<2.",
    )
