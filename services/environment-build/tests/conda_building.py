"""Builds with conda packages, as several files of tests ask for them."""

import json
from typing import Any

import pytest
from conda_channel import MINOR

from stellwerk.environment_spec import from_conda_yaml
from stellwerk_environment_build.builder import Builder, BuildResult
from stellwerk_environment_build.failures import BuildFailedError, Failure


def wants(
    *conda: str, pip: tuple[str, ...] = (), channels: str = "ours", python: str = MINOR
) -> str:
    content = {
        "channels": [channels],
        "dependencies": [f"python={python}", *conda, *([{"pip": [*pip]}] if pip else [])],
    }
    return json.dumps(content)


async def build(
    builder: Builder, text: str, log: list[str] | None = None, **changes: Any
) -> BuildResult:
    spec, identity = await builder.recognise(from_conda_yaml(text))
    lines = [] if log is None else log
    return await builder.build(spec, identity, lines.append, **changes)


async def failure(builder: Builder, text: str) -> Failure:
    with pytest.raises(BuildFailedError) as caught:
        await build(builder, text)
    assert not list((builder.cache.root / ".building").iterdir())
    assert builder.cache.usage() == ()
    return caught.value.failure
