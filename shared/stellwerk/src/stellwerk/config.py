"""Where the platform is, and the token for it.

Asked in this order: explicit arguments, ``STELLWERK_URL`` with ``STELLWERK_TOKEN`` or
``STELLWERK_TOKEN_FILE``, ``.stellwerk/config.json`` or ``config.json`` in the current folder or
its parents, ``$STELLWERK_HOME/client.json``. Standard library only.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from stellwerk.errors import UserError

DEFAULT_WORKSPACE = "default"
SUPERVISOR_LOCK = "supervisor.lock"
"""A file in every data folder of the embedded stack."""


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach one workspace. ``source`` says where it was found, for messages."""

    url: str
    token: str = field(repr=False)
    workspace: str = DEFAULT_WORKSPACE
    source: str = "arguments"


def home() -> Path:
    """The data folder of the embedded stack, ``$STELLWERK_HOME`` or ``~/.stellwerk``."""
    return Path(os.environ.get("STELLWERK_HOME") or Path.home() / ".stellwerk")


def discover(
    url: str | None = None, token: str | None = None, workspace: str | None = None
) -> Connection:
    """The connection to use from here. Raises UserError (workspace.not_found)."""
    if url:
        return _connection(url, token or _token_for(url), workspace, "arguments")
    if from_environment := os.environ.get("STELLWERK_URL"):
        found = token or _environment_token() or _token_for(from_environment)
        return _connection(from_environment, found, workspace, "STELLWERK_URL")
    for path in _candidates():
        if content := _read(path):
            return _from_content(content, path, token, workspace)
    raise UserError(
        "No Stellwerk platform found: STELLWERK_URL is not set, there is no .stellwerk/config.json "
        f"in this folder or its parents, and no {home() / 'client.json'}. "
        "Start one on this machine: run `stellwerk up`.",
        code="workspace.not_found",
    )


def from_file(path: Path) -> Connection:
    """The connection in one file, or in the usual places of one folder. Raises UserError."""
    places = (
        [path] if path.is_file() else [path / ".stellwerk" / "config.json", path / "config.json"]
    )
    for place in places:
        if content := _read(place):
            return _from_content(content, place, None, None)
    lacks = (
        'holds no Stellwerk configuration (a JSON file with "url")'
        if path.exists()
        else "does not exist"
    )
    raise UserError(
        f"path: {path} {lacks}. "
        "Write one with Workspace.write_config(), or run `stellwerk up` and leave path out.",
        code="workspace.not_found",
        field="path",
    )


def write(path: Path, connection: Connection) -> Path:
    """Write address and workspace, never the token, to ``<path>/.stellwerk/config.json``."""
    target = path / ".stellwerk" / "config.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    content = {"url": connection.url, "workspace": connection.workspace}
    target.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return target


def _candidates() -> Iterator[Path]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        yield folder / ".stellwerk" / "config.json"
        yield folder / "config.json"
    yield home() / "client.json"


def _read(path: Path) -> dict[str, str] | None:
    """The file's content if it is one of ours; other programs have a config.json as well.

    Raises UserError for one that can only be ours and cannot be used: another platform than the
    one it names would be a surprise.
    """
    ours = path.parent.name == ".stellwerk" or path.name == "client.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        if ours:
            raise _unusable(path, str(error)) from error
        return None
    if not isinstance(content, dict) or not isinstance(content.get("url"), str):
        if ours:
            raise _unusable(path, 'it has no "url" that is text')
        return None
    return {key: value for key, value in content.items() if isinstance(value, str)}


def _unusable(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} cannot be used: {why}. Mend or remove it.", code="workspace.file", field="path"
    )


def _from_content(
    content: dict[str, str], path: Path, token: str | None, workspace: str | None
) -> Connection:
    url = content["url"]
    found = token or content.get("token") or _environment_token() or _token_for(url)
    return _connection(url, found, workspace or content.get("workspace"), str(path))


def _connection(url: str, token: str, workspace: str | None, source: str) -> Connection:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UserError(
            f"url: got {url[:200]!r} from {source}; it must look like http://host:port",
            code="workspace.url",
            field="url",
        )
    return Connection(url.rstrip("/"), token, workspace or DEFAULT_WORKSPACE, source)


def _environment_token() -> str:
    if token := os.environ.get("STELLWERK_TOKEN"):
        return token
    name = os.environ.get("STELLWERK_TOKEN_FILE")
    if not name:
        return ""
    try:
        return Path(name).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(
            f"STELLWERK_TOKEN_FILE: cannot read {name}: {error.strerror}",
            code="workspace.token_file",
        ) from error


def _token_for(url: str) -> str:
    """The embedded stack's own token, but only for its own address."""
    content = _read(home() / "client.json") or {}
    if content.get("url", "").rstrip("/") == url.rstrip("/"):
        return content.get("token", "")
    return _environment_token()
