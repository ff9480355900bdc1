"""Logins of image registries, from a file that only its service reads."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class RegistryLogins:
    """``username`` and ``password`` by registry (``host`` or ``host:port``); never printed."""

    by_host: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: Path | None, registry: str | None) -> Self:
        """From ``{"username", "password"}``, which are those of ``registry``, or ``{host: {…}}``.

        Raises ValueError that shows nothing of the content.
        """
        if path is None:
            return cls()
        try:
            found = json.loads(path.read_text())
            if "username" in found:
                found = {} if registry is None else {registry: found}
            return cls({host: _login(each) for host, each in found.items()})
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ValueError(
                f'{path}: write {{"username": …, "password": …}} or {{"host:port": {{…}}, …}}'
            ) from None

    def of(self, image: str) -> dict[str, str] | None:
        """The login for the registry that ``image`` names, None to ask without one."""
        found = self.by_host.get(image.partition("/")[0])
        return dict(found) if found else None


def _login(given: Mapping[str, str]) -> dict[str, str]:
    return {name: str(given[name]) for name in ("username", "password")}
