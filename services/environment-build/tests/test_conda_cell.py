"""What a channel's interpreter may do while an environment is built, and what activation sets."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from conda_building import build, failure, wants
from conda_channel import MINOR, PLATFORM, VERSION, CondaChannel

from stellwerk.environment_spec import NormalisedSpec
from stellwerk.events.image import ENVIRONMENT_FOLDER
from stellwerk_environment_build import conda_construction
from stellwerk_environment_build.build_cell import CellSettings, Mode
from stellwerk_environment_build.builder import Builder
from stellwerk_environment_build.conda_channels import ChannelSettings
from stellwerk_environment_build.domain import Waiter
from stellwerk_kit.testing import wait_until

MakeWheel = Callable[..., Path]
MakeBuilder = Callable[..., Builder]

SPY = """#!/bin/bash
seen={seen}
{{ env; cat {outside}; ls {cache}/.uv; ls $HOME; }} >> $seen 2>/dev/null
echo reached >> {outside} 2>/dev/null
(echo > /dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo connected >> $seen
{stays}
exec "$(dirname "$0")/python{minor}" "$@"
"""


@pytest.mark.parametrize("mode", ["require", "off"])
async def test_interpreter_of_a_channel_sees_no_login_and_links_are_not_followed(
    make_builder: MakeBuilder,
    channel: CondaChannel,
    make_wheel: MakeWheel,
    tmp_path: Path,
    served: Any,
    mode: Mode,
) -> None:
    seen, outside, cache = tmp_path / "seen", tmp_path / "outside", tmp_path / "cache"
    outside.write_text("mine")
    stays = "setsid sleep 1000 &" if mode == "require" else ""
    places = {
        "stays": stays,
        "outside": outside,
        "cache": cache,
        "port": served.server_address[1],
        "minor": MINOR,
    }
    # In a cell it can write to its own environment alone, and only while it compiles.
    written = '"$(dirname "$0")/../seen"' if mode == "require" else str(seen)
    links = {"ready.json": "mine", "requirements.lock": "mine"}
    (channel.folder / PLATFORM / f"python-{VERSION}-0.tar.bz2").unlink()
    channel.add_python(SPY.format(seen=written, **places).encode(), links)
    make_wheel("alpha", "1.0")
    channel.add_module("tool", "1.0")
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "UV_INDEX_URL": "https://name:geheim@index.invalid/simple",
        "HTTPS_PROXY": "http://name:geheim@127.0.0.1:9",
        "RATTLER_AUTH_FILE": "/geheim",
    }
    builder = make_builder(
        channels=ChannelSettings("channels", {"ours": channel.address}),
        sandbox=CellSettings(mode, (Path(sys.base_prefix),)),
        environ=environ,
    )
    sleepers = _sleepers()
    log: list[str] = []
    result = await build(builder, wants("tool", pip=("alpha",)), log)
    found = cache / result.ready.env_id / "seen" if mode == "require" else seen
    said = found.read_text()
    assert "PATH=" in said
    assert "geheim" not in said
    assert str(cache / ".uv") not in said
    assert builder.cache.known(result.ready.env_id) == result.ready
    assert builder._donors(NormalisedSpec(python=result.ready.python)) == ()
    plain = "".join(log).count("is started without a sandbox: STELLWERK_BUILD_SANDBOX=off")
    if mode == "off":
        assert plain == 1
        assert said.count("connected") > 1
        return
    assert plain == 0
    assert not seen.exists()
    for private in ("mine", "connected", "CACHEDIR", "channel"):
        assert private not in said
    assert outside.read_text() == "mine"
    assert not (cache / result.ready.env_id / "mine").exists()
    await wait_until(lambda: _sleepers() <= sleepers, 10.0)


def _sleepers() -> set[int]:
    """What the spy leaves behind."""
    return {
        each.pid
        for each in psutil.process_iter(["cmdline"])
        if each.info["cmdline"] == ["sleep", "1000"]
    }


async def test_without_a_sandbox_where_one_is_required_nothing_is_built(
    make_builder: MakeBuilder, channel: CondaChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    channels = ChannelSettings("channels", {"ours": channel.address})
    found = await failure(
        make_builder(channels=channels, sandbox=CellSettings("require")), wants("tool")
    )
    assert (found.reason, found.code, found.retryable) == (
        "internal",
        "env.sandbox_required",
        False,
    )
    assert "apt-get install bubblewrap" in found.message
    channel.add_module("tool", "1.0")
    scripts = {"etc/conda/activate.d/x.sh": b"export X=1\n"}
    channel.add("setter", "1.0", scripts, subdir=PLATFORM)
    log: list[str] = []
    result = await build(
        make_builder(channels=channels, sandbox=CellSettings("auto", (Path(sys.base_prefix),))),
        wants("tool", "setter"),
        log,
    )
    assert "is started without a sandbox: bubblewrap is not installed" in "".join(log)
    assert dict(result.ready.package_variables) == {"CONDA_PREFIX": ENVIRONMENT_FOLDER}
    assert (
        "activation scripts of its conda packages were not run" in result.ready.variable_warnings[0]
    )


async def test_what_activation_sets_is_the_runs(
    builder: Builder, channel: CondaChannel, tmp_path: Path
) -> None:
    second, first = b"export B_FIRST=$A_FIRST FROM_FILE=$FROM_FILE\n", b"export A_FIRST=1\n"
    where = b"""export WHERE="$CONDA_PREFIX/share/x" ODD="a=b
c" PATH="$CONDA_PREFIX/more:$PATH" HOME=/elsewhere PYTHONPATH=/evil LD_PRELOAD=/evil.so
notexported=1
f() { :; }; export -f f
echo a line for people
unset FROM_JSON
"""
    files = {
        "etc/conda/activate.d/b.sh": second,
        "etc/conda/activate.d/a.sh": first,
        "etc/conda/activate.d/c.sh": where,
        "etc/conda/activate.d/d.fish": b"exit 1",
        "etc/conda/env_vars.d/tool.json": json.dumps(
            {"FROM_FILE": "2", "FROM_JSON": "3", "NOT": "***unset***"}
        ).encode(),
    }
    channel.add("setter", "1.0", files, subdir=PLATFORM)
    log: list[str] = []
    result = await build(builder, wants("setter"), log)
    assert dict(result.ready.package_variables) == {
        "CONDA_PREFIX": ENVIRONMENT_FOLDER,
        "A_FIRST": "1",
        "B_FIRST": "1",
        "FROM_FILE": "2",
        "WHERE": f"{ENVIRONMENT_FOLDER}/share/x",
        "ODD": "a=b\nc",
    }
    said = "".join(result.ready.variable_warnings)
    assert "sets LD_PRELOAD, which runs do not take over" in said
    assert "sets PYTHONPATH" in said
    assert any("a line for people" in line for line in log)
    image = Waiter("run").image(result.ready)
    assert image.package_variables["A_FIRST"] == "1"
    assert set(result.ready.variable_warnings) <= set(image.warnings)


@pytest.mark.parametrize(
    ("script", "links"),
    [
        (b"export A=1\nexit 3\n", {}),
        (b"kill -9 $$\n", {}),
        (b"export A=1\n", {"etc/conda/env_vars.d/x.json": "nowhere"}),
    ],
)
async def test_activation_that_breaks_off_is_a_warning(
    builder: Builder,
    channel: CondaChannel,
    script: bytes,
    links: dict[str, str],
) -> None:
    channel.add(
        "setter", "1.0", {"etc/conda/activate.d/a.sh": script}, subdir=PLATFORM, links=links
    )
    result = await build(builder, wants("setter"))
    kept = {"CONDA_PREFIX": ENVIRONMENT_FOLDER, **({"A": "1"} if links else {})}
    assert dict(result.ready.package_variables) == kept
    assert "broke off" in "".join(result.ready.variable_warnings)


async def test_activation_that_never_ends_is_ended(
    builder: Builder, channel: CondaChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conda_construction, "ACTIVATE_S", 1.0)
    files = {"etc/conda/activate.d/a.sh": b"while :; do :; done\n"}
    channel.add("setter", "1.0", files, subdir=PLATFORM)
    found = await failure(builder, wants("setter"))
    assert (found.reason, found.code) == ("timeout", "env.build_timeout")
    assert "activation" in found.message
