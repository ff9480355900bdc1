"""``uv.lock``: which versions, and which files of them, a project was locked to. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from stellwerk.environment_requirement import InvalidEnvironment, parse_requirement

FILE = "uv.lock"
MAX_BYTES = 4 * 1024 * 1024
MAX_VERSIONS = 50
"""Of one name: a lock forks by Python and platform, a few times at most."""
_VERSION = 1
_SHA256 = re.compile(r"^sha256:[0-9a-f]{64}$")
_ROOT = ({"virtual": "."}, {"editable": "."}, {"directory": "."})
Package = Mapping[str, Any]


@dataclass(frozen=True)
class Locked:
    """``constraints`` pin what was reached; ``hashes`` by ``name==version``, hex digits."""

    constraints: tuple[str, ...] = ()
    hashes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_uv_lock(
    text: str, name: str, declared: Sequence[str], extras: Sequence[str], groups: Sequence[str]
) -> Locked:
    """What the lock of the project called ``name`` says for these extras and groups.

    ``declared`` are the project's requirements, which the lock has to be made for. Raises
    InvalidEnvironment: env.syntax, env.lock_version, env.lock_versions, env.lock_stale,
    env.hash_required, env.no_wheel, env.direct_reference.
    """
    from stellwerk.pyproject_file import toml  # noqa: PLC0415 - the two read the same format

    data = toml(text, FILE, MAX_BYTES)
    try:
        return _read(data, name, declared, extras, groups)
    except InvalidEnvironment:
        raise
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise InvalidEnvironment(
            "env.syntax",
            field=FILE,
            hint="The lock is not as uv writes it; run uv lock again.",
        ) from error


def _read(
    data: Mapping[str, Any],
    name: str,
    declared: Sequence[str],
    extras: Sequence[str],
    groups: Sequence[str],
) -> Locked:
    if data.get("version") != _VERSION:
        raise InvalidEnvironment(
            "env.lock_version",
            field="uv.lock version",
            got=str(data.get("version")),
            hint=f"Locks of version {_VERSION} are read; make the lock with a current uv.",
        )
    packages = [each for each in data.get("package") or () if isinstance(each, dict)]
    root = next(
        (each for each in packages if each.get("source") in _ROOT and _name(each) == name), None
    )
    if root is None:
        raise _stale(name, "the lock is of another project")
    _require_fresh(root, declared)
    reached = _reached(root, packages, extras, groups)
    by_name: dict[str, int] = {}
    for each in packages:
        by_name[_name(each)] = by_name.get(_name(each), 0) + 1
    constraints, hashes = [], {}
    for package, sure in reached:
        pin = f"{_name(package)}=={package.get('version')}"
        markers = package.get("resolution-markers") or ()
        forked = by_name[_name(package)] > 1 and markers
        condition = " or ".join(f"({marker})" for marker in markers) if forked else ""
        constraint = f"{pin} ; {condition}" if condition else pin
        parse_requirement(constraint, f"{FILE} package {_name(package)}")
        constraints.append(constraint)
        hashes[pin] = tuple(_hashes(package))
        if sure and not hashes[pin]:
            raise InvalidEnvironment(
                "env.no_wheel",
                field=f"{FILE} package {_name(package)}",
                got=pin,
                hint="The lock has no file of it for Linux; choose a version that has one.",
            )
    return Locked(tuple(sorted(constraints)), hashes)


def _name(package: Package) -> str:
    return canonicalize_name(str(package.get("name", "")))


def _require_fresh(root: Package, declared: Sequence[str]) -> None:
    """Whether the lock was made for these requirements."""
    recorded = (root.get("metadata") or {}).get("requires-dist") or ()
    then = {(_name(each), str(SpecifierSet(each.get("specifier") or ""))) for each in recorded}
    requirements = [parse_requirement(text, "pyproject.toml") for text in declared]
    now = {(canonicalize_name(each.name), str(each.specifier)) for each in requirements}
    differing = sorted(name + specifier for name, specifier in (now ^ then))
    differing = [each for each in differing if not each.startswith(_name(root))]
    if differing:
        raise _stale(differing[0], "the project was changed since it was locked")


def _stale(got: str, why: str) -> InvalidEnvironment:
    return InvalidEnvironment(
        "env.lock_stale", field=FILE, got=got, hint=f"{why.capitalize()}; run uv lock again."
    )


def _reached(
    root: Package, packages: Sequence[Package], extras: Iterable[str], groups: Iterable[str]
) -> list[tuple[Package, bool]]:
    """Every package that the root needs, itself left out; whether it does without condition."""
    first = [*(root.get("dependencies") or ())]
    optional, grouped = root.get("optional-dependencies") or {}, root.get("dev-dependencies") or {}
    for names, table in ((extras, optional), (groups, grouped)):
        known = {canonicalize_name(key): entries for key, entries in table.items()}
        for name in names:
            first += known.get(canonicalize_name(name), ())
    known_packages = _Index(packages)
    found: dict[tuple[str, str], tuple[Package, bool]] = {}
    pending = [(each, True) for each in first]
    seen = set[tuple[str, str, str, bool]]()
    while pending:
        wanted, above = pending.pop()
        sure = above and not wanted.get("marker")
        for package in known_packages.fitting(wanted):
            if package is root:
                continue
            name, version = _name(package), str(package.get("version"))
            _require_registry(package)
            before = found.get((name, version), (package, False))[1]
            found[name, version] = (package, sure or before)
            more = package.get("optional-dependencies") or {}
            for extra in ("", *(wanted.get("extra") or ())):
                if (name, version, extra, sure) not in seen:  # each list is gone through once
                    seen.add((name, version, extra, sure))
                    needs = more.get(extra) if extra else package.get("dependencies")
                    pending += [(each, sure) for each in needs or ()]
    return list(found.values())


class _Index:
    """The packages of a lock by name and version. Raises InvalidEnvironment (env.lock_versions)."""

    def __init__(self, packages: Sequence[Package]) -> None:
        self._by_name: dict[str, list[Package]] = {}
        self._by_version: dict[tuple[str, Any], list[Package]] = {}
        for each in packages:
            of_name = self._by_name.setdefault(_name(each), [])
            of_name.append(each)
            self._by_version.setdefault((_name(each), each.get("version")), []).append(each)
            if len(of_name) > MAX_VERSIONS:
                raise InvalidEnvironment(
                    "env.lock_versions",
                    field=f"{FILE} package {_name(each)[:60]}",
                    got=f"more than {MAX_VERSIONS} entries of one name",
                    hint=f"At most {MAX_VERSIONS} versions of a package are read; narrow "
                    "requires-python or tool.uv.environments and run uv lock again.",
                )

    def fitting(self, wanted: Mapping[str, Any]) -> Sequence[Package]:
        """Those that an entry of a list of dependencies may mean."""
        name, version = _name(wanted), wanted.get("version")
        if version is None:
            return self._by_name.get(name, ())
        return self._by_version.get((name, version), ())


def _require_registry(package: Package) -> None:
    source = package.get("source") or {}
    if "registry" not in source:
        raise InvalidEnvironment(
            "env.direct_reference",
            field=f"{FILE} package {_name(package)}",
            got=", ".join(source) or "no source",
            hint="Only released packages of an index can be installed; name one.",
        )


def _hashes(package: Package) -> Iterator[str]:
    """The files for Linux, and those for every system."""
    files = [each for each in package.get("wheels") or () if _for_linux(str(each.get("url", "")))]
    files += [package["sdist"]] if package.get("sdist") else []
    for file in files:
        digest = str(file.get("hash") or "nothing")
        if not _SHA256.match(digest):
            raise InvalidEnvironment(
                "env.hash_required",
                field=f"{FILE} package {_name(package)}",
                got=digest.partition(":")[0],
                hint="Every file in a lock needs its SHA-256.",
            )
        yield digest.removeprefix("sha256:")


def _for_linux(url: str) -> bool:
    platform = url.rpartition("/")[2].removesuffix(".whl").rpartition("-")[2]
    return "linux" in platform or platform == "any"
