"""The file of master keys: a JSON list of ``{"id", "key"}``, for its owner alone (0600).

The first key seals; all of them open. ``python -m stellwerk_keyvault.keys FILE`` puts a new key in
front: the service seals every value with it within a minute, and the older keys can then be
taken out of the file.
"""

import base64
import binascii
import json
import os
import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One key; ``id`` is stored beside every value that it sealed."""

    id: str
    key: bytes = field(repr=False)


def ensure(path: Path) -> None:
    """Make the file with one key if there is none."""
    if not path.exists():
        add(path)


def add(path: Path) -> MasterKey:
    """Put a new key in front; returns it. Raises ValueError for a file that holds no keys."""
    known = load(path) if path.exists() else ()
    made = MasterKey(secrets.token_hex(4), secrets.token_bytes(KEY_BYTES))
    content = [
        {"id": each.id, "key": base64.b64encode(each.key).decode()} for each in (made, *known)
    ]
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        os.fchmod(descriptor, 0o600)  # one left behind may have had another mode
        json.dump(content, out, indent=1)
        out.flush()
        os.fsync(descriptor)  # a value sealed with a key that a crash forgets is lost
    temporary.replace(path)
    return made


def load(path: Path) -> tuple[MasterKey, ...]:
    """The keys, the sealing one first. Raises ValueError saying what is wrong with the file."""
    try:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise ValueError(f"{path} can be read by others (mode {mode:03o}): chmod 600 {path}")
        found = tuple(
            MasterKey(str(entry["id"]), base64.b64decode(entry["key"], validate=True))
            for entry in json.loads(path.read_text())
        )
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except (json.JSONDecodeError, binascii.Error, KeyError, TypeError) as error:
        raise ValueError(
            f'{path} must be a JSON list of {{"id", "key"}}, keys in base64'
        ) from error
    if not found or any(len(each.key) != KEY_BYTES for each in found):
        raise ValueError(f"{path} has no key, or one that is not {KEY_BYTES} bytes long")
    if len({each.id for each in found}) != len(found):
        raise ValueError(f"{path} has two keys of one id")
    return found


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m stellwerk_keyvault.keys FILE")
    print(add(Path(sys.argv[1])).id)  # noqa: T201 - the id only; the key stays in the file
