"""What an image of an environment says of itself, made of what its base says. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stellwerk.events.image import IMAGE_ENVIRONMENT

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("Labels", "Shell", "StopSignal", "Volumes", "WorkingDir")
_MACHINE = ("Architecture", "Os", "Variant")


def config_of(base: Mapping[str, Any], layers: Sequence[str]) -> bytes:
    """The configuration of ``layers`` (digests of what they unpack to) on ``base``.

    ``base`` is as the engine tells it. The environment comes first, no entry point is in its way.
    Nothing in it tells when or where it was made: the same environment is the same image.
    """
    said = base["Config"]
    ours = {"PATH": f"{IMAGE_ENVIRONMENT}/bin:{_SYSTEM_PATH}", "VIRTUAL_ENV": IMAGE_ENVIRONMENT}
    theirs = [each for each in said.get("Env") or () if each.partition("=")[0] not in ours]
    config = {name: said[name] for name in _KEPT if said.get(name)} | {
        "Cmd": ["python"],
        "Env": [*theirs, *(f"{name}={value}" for name, value in ours.items())],
        "User": "0",
    }
    machine = {name.lower(): base[name] for name in _MACHINE if base.get(name)}
    content = {
        **machine,
        "config": config,
        "created": base.get("Created"),
        "rootfs": {"type": "layers", "diff_ids": [*base["RootFS"]["Layers"], *layers]},
    }
    return json.dumps(content, sort_keys=True).encode()
