"""Conda packages whose files lead elsewhere: nothing is written or read outside an environment."""

import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conda_building import build, failure, wants
from conda_channel import PLATFORM, CondaChannel

from stellwerk_environment_build.build_cell import CellSettings, Mode
from stellwerk_environment_build.builder import Builder
from stellwerk_environment_build.conda_channels import ChannelSettings

MakeBuilder = Callable[..., Builder]
UP = "s/../../../.."
"""From where ``s`` leads in the package, its own top; from the folder ``s``, that of the cache."""


def put(
    channel: CondaChannel,
    name: str,
    files: Mapping[str, bytes],
    listed: Mapping[str, bytes],
    links: Mapping[str, str] | None = None,
) -> None:
    """A package whose list of files is ``listed``, whatever it holds."""
    about = {"name": name, "version": "1.0", "build": "0", "build_number": 0, "subdir": PLATFORM}
    paths = [
        {
            "_path": path,
            "path_type": "hardlink",
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_in_bytes": len(data),
        }
        for path, data in listed.items()
    ]
    infos = {
        "info/index.json": json.dumps({**about, "depends": []}).encode(),
        "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}).encode(),
    }
    target = channel.folder / PLATFORM / f"{name}-1.0-0.tar.bz2"
    with tarfile.open(target, "w:bz2") as archive:
        for path, goal in (links or {}).items():
            member = tarfile.TarInfo(path)
            member.type, member.linkname = tarfile.SYMTYPE, goal
            archive.addfile(member)
        for path, data in {**files, **infos}.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    channel.index()


@pytest.mark.parametrize("mode", ["require", "off"])
async def test_list_of_files_that_leads_out_of_the_environment(
    make_builder: MakeBuilder, channel: CondaChannel, tmp_path: Path, mode: Mode
) -> None:
    """In the package ``s`` is a link and the path stays inside, in the environment a folder."""
    inside = {"a/b/c/d/x": b"1", "victim/evil": b"1"}
    put(channel, "evil", inside, {f"{UP}/victim/evil": b"1"}, {"s": "a/b/c/d"})
    put(channel, "folder", {"s/y": b"1"}, {"s/y": b"1"})
    builder = make_builder(
        channels=ChannelSettings("channels", {"ours": channel.address}),
        sandbox=CellSettings(mode, (Path(sys.base_prefix),)),
    )
    found = await failure(builder, wants("evil", "folder"))
    assert (found.reason, found.code) == ("your-spec", "env.conda_package_outside")
    assert "evil-1.0-0.tar.bz2 has a file" in found.message
    assert (builder.cache.root / "victim").exists() == (mode == "off")  # seen to be worth a wall
    assert not list((builder.cache.conda_cache).glob("packages/*"))
    channel.add_module("tool", "1.0")
    assert "tool=1.0=0" in (await build(builder, wants("tool"))).ready.packages


async def test_a_file_of_the_machine_is_not_taken_into_an_environment(
    builder: Builder, channel: CondaChannel, tmp_path: Path
) -> None:
    """In the environment ``s`` is deep, and the path stays inside; in the package it leads out."""
    (tmp_path / "credentials").write_bytes(b"geheim")
    out = "s/../../../../credentials"  # of <cache>/.conda/packages/evil-1.0-0/s
    put(channel, "evil", {"s/x": b"1"}, {out: b"geheim", "s/x": b"1"})
    found = await failure(builder, wants("evil"))
    assert found.code == "env.conda_package_outside"
    assert "geheim" not in found.message


@pytest.mark.parametrize(
    ("files", "links", "built"),
    [
        ({"../../evil": b"1"}, {}, True),
        ({"{outside}/evil": b"1"}, {}, True),
        ({"lib/evil": b"1"}, {"lib": "{outside}"}, False),
    ],
)
async def test_members_of_an_archive_that_lead_out(
    builder: Builder,
    channel: CondaChannel,
    tmp_path: Path,
    files: dict[str, bytes],
    links: dict[str, str],
    built: bool,
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()

    def placed(text: str) -> str:
        return text.format(outside=outside)

    put(
        channel,
        "evil",
        {placed(path): data for path, data in files.items()},
        {},
        {path: placed(goal) for path, goal in links.items()},
    )
    if built:
        await build(builder, wants("evil"))
    else:
        found = await failure(builder, wants("evil"))
        assert (found.reason, found.code) == ("your-spec", "env.conda_package_broken")
    assert not list(outside.iterdir())
    assert not (tmp_path / "evil").exists()


async def test_script_of_a_package_lies_among_the_scripts(
    builder: Builder, channel: CondaChannel, tmp_path: Path
) -> None:
    path = channel.add_module("tool", "1.0")
    repacked = _with_entry_point(path, "../../../../evil = tool:main")
    path.write_bytes(repacked)
    channel.index()
    found = await failure(builder, wants("tool"))
    assert found.code == "env.conda_package_broken"
    assert not list(tmp_path.rglob("evil"))


def _with_entry_point(package: Path, script: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(package) as old, tarfile.open(fileobj=out, mode="w:bz2") as new:
        for member in old:
            source = old.extractfile(member)
            data = b"" if source is None else source.read()
            if member.name == "info/link.json":
                link: dict[str, Any] = json.loads(data)
                link["noarch"]["entry_points"] = [script]
                data = json.dumps(link).encode()
                member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return out.getvalue()
