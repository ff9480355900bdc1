"""``config.json`` of the v1 SDK: three names, found in the places where the original put it."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from azureml.exceptions import UserErrorException

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
RESOURCE_GROUP = "stellwerk"
FOLDERS = (".azureml", "aml_config", "", ".azureml/.azureml")
"""Below a folder, in the order they are looked at."""


@dataclass(frozen=True, slots=True)
class Names:
    """How v1 code calls the workspace. They choose nothing: there is one platform to reach."""

    workspace_name: str
    resource_group: str = RESOURCE_GROUP
    subscription_id: str = SUBSCRIPTION


def find(start: Path, file_name: str | None) -> tuple[Path, Names] | None:
    """The nearest file of this form: ``start`` itself, below it, or below one of its parents.

    Of a ``start`` that is not there, the last part is the file's name: ``write_config(path,
    file_name)`` puts it into a folder of its own, and v1 code reads it at ``path/file_name``.
    """
    if start.is_file():
        return _read(start)
    if not start.is_dir():
        start, file_name = start.parent, start.name
    for place in _places(start.absolute(), file_name or "config.json"):
        if found := _read(place):
            return found
    return None


def write(path: Path, file_name: str | None, names: Names) -> Path:
    """Write ``<path>/.azureml/config.json``, or below ``aml_config`` where that exists."""
    folder = path / ("aml_config" if (path / "aml_config").is_dir() else ".azureml")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (file_name or "config.json")
    target.write_text(json.dumps(asdict(names), indent=4) + "\n", encoding="utf-8")
    return target


def _places(start: Path, file_name: str) -> Iterator[Path]:
    for folder in (start, *start.parents):
        for below in FOLDERS:
            yield folder / below / file_name


def _read(path: Path) -> tuple[Path, Names] | None:
    """None where the file is not there or belongs to somebody else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError:
        return None
    except ValueError as error:
        if path.parent.name not in {".azureml", "aml_config"}:
            return None
        raise UserErrorException(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or "workspace_name" not in content:
        return None
    wanted = ("workspace_name", "resource_group", "subscription_id")
    wrong = [key for key in wanted if not isinstance(content.get(key), str) or not content[key]]
    if wrong:
        raise UserErrorException(f"{path} has no {', '.join(wrong)}; a text is expected there")
    return path, Names(**{key: content[key] for key in wanted})
