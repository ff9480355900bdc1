"""Conda packages whose files lead elsewhere: nothing is written or read outside an environment."""

import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conda_building import build, failure, wants
from conda_channel import PLATFORM, CondaChannel

from stellwerk.environment_spec import from_conda_yaml
from stellwerk_environment_build.build_cell import CellSettings, Mode
from stellwerk_environment_build.build_log import BuildLog
from stellwerk_environment_build.builder import Builder
from stellwerk_environment_build.conda_channels import ChannelSettings
from stellwerk_environment_build.conda_construction import CondaConstruction

MakeBuilder = Callable[..., Builder]
UP = "s/../../../.."
"""From where ``s`` leads in the package, its own top; from the folder ``s``, that of the cache."""


def put(
    channel: CondaChannel,
    name: str,
    files: Mapping[str, bytes],
    listed: Mapping[str, bytes],
    links: Mapping[str, str] | None = None,
    *,
    entry: Mapping[str, str] | None = None,
    infos: Mapping[str, bytes] | None = None,
) -> None:
    """A package whose list of files is ``listed``, whatever it holds.

    ``entry``: what each file has there beside that; ``infos``: what is about the package instead.
    """
    about = {"name": name, "version": "1.0", "build": "0", "build_number": 0, "subdir": PLATFORM}
    paths = [
        {
            "_path": path,
            "path_type": "hardlink",
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_in_bytes": len(data),
            **(entry or {}),
        }
        for path, data in listed.items()
    ]
    listing = {"info/paths.json": json.dumps({"paths": paths, "paths_version": 1}).encode()}
    infos = {
        "info/index.json": json.dumps({**about, "depends": []}).encode(),
        **(listing if infos is None else infos),
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
    assert not (builder.cache.root / "victim").exists()
    assert not list(builder.cache.conda_cache.glob("packages/evil-*"))
    assert not list(builder.cache.conda_cache.glob("unpacking/*"))
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


PLACEHOLDER = {"prefix_placeholder": "geheim", "file_mode": "text"}


@pytest.fixture
def secretive(make_builder: MakeBuilder, channel: CondaChannel, tmp_path: Path) -> Builder:
    """Its file of logins is ``tmp_path/logins``."""
    (tmp_path / "logins").write_text('{"h": {"BearerToken": "geheim"}}')
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    return make_builder(
        channels=ChannelSettings("channels", {"ours": channel.address}),
        environ={**environ, "RATTLER_AUTH_FILE": str(tmp_path / "logins")},
    )


@pytest.mark.parametrize(
    ("listed", "links", "entry"),
    [
        ("x", {"x": "{tmp}/logins"}, {}),
        ("x", {"x": "../../../../../logins"}, {}),
        ("x", {"x": "y", "y": "{tmp}/logins"}, {}),
        ("s/logins", {"s": "{tmp}"}, {}),
        ("x", {"x": "{tmp}/logins"}, PLACEHOLDER),
        ("s/logins", {"s": "{tmp}"}, {"path_type": "softlink"}),
        ("x", {"x": "{tmp}/logins"}, {"path_type": "softlink"}),
        ("x", {"x": "../logins"}, {"path_type": "softlink"}),
        ("b/x", {"b/x": "d/../x", "b/d": ".."}, {"path_type": "softlink"}),
        ("x", {"x": "/etc/shadow"}, {}),
        ("info/index.json", {"info/link.json": "{tmp}/logins"}, {}),
    ],
)
async def test_nothing_is_read_through_a_link_of_a_package(
    secretive: Builder,
    channel: CondaChannel,
    tmp_path: Path,
    listed: str,
    links: dict[str, str],
    entry: dict[str, str],
) -> None:
    links = {path: goal.format(tmp=tmp_path) for path, goal in links.items()}
    put(channel, "evil", {}, {listed: b""}, links, entry=entry)
    found = await failure(secretive, wants("evil"))
    assert (found.reason, found.code) == ("your-spec", "env.conda_package_outside")
    assert "evil-1.0-0.tar.bz2 has a file" in found.message
    assert not list(secretive.cache.conda_cache.glob("packages/evil-*"))
    for path in secretive.cache.root.rglob("*"):
        assert path.is_symlink() or not path.is_file() or b"geheim" not in path.read_bytes()


@pytest.mark.parametrize(
    "infos",
    [
        {"info/files": b"x\n"},
        {"info/files": b"x\n", "info/paths.json": b"{"},
        {"info/files": b"x\n", "info/paths.json": '{"paths": []}'.encode("utf-16")},
        {"info/files": b"x\n", "info/paths.json": b'{"paths": [], "paths_version": NaN}'},
    ],
)
async def test_a_package_without_a_readable_list_of_its_files_is_refused(
    secretive: Builder, channel: CondaChannel, tmp_path: Path, infos: dict[str, bytes]
) -> None:
    """The library would go by an older list, which nobody has looked at."""
    put(channel, "evil", {}, {}, {"x": str(tmp_path / "logins")}, infos=infos)
    found = await failure(secretive, wants("evil"))
    assert found.code == "env.conda_package_outside"
    assert "has no readable list of its files" in found.message


async def test_links_within_the_environment_are_fine(
    builder: Builder, channel: CondaChannel
) -> None:
    """Also to what another package brings, and as a file where one was meant."""
    channel.add("other", "1.0", {"lib/far.so.1": b"far"}, subdir=PLATFORM)
    links = {"lib/x.so": "x.so.1", "bin/far": "../lib/far.so.1", "share/lib": "../lib"}
    channel.add("good", "1.0", {"lib/x.so.1": b"near"}, subdir=PLATFORM, links=links)
    put(channel, "copied", {"etc/y": b"y"}, {"etc/z": b"y"}, {"etc/z": "y"})
    made = await build(builder, wants("good", "other", "copied"))
    place = builder.cache.path(made.ready.env_id)
    assert (place / "lib/x.so").readlink() == Path("x.so.1")
    assert (place / "bin/far").read_bytes() == b"far"
    assert (place / "share/lib/x.so").read_bytes() == b"near"
    assert (place / "etc/z").read_bytes() == b"y"
    assert not (place / "etc/z").is_symlink()


async def test_what_a_killed_worker_left_is_not_used(
    builder: Builder, channel: CondaChannel, tmp_path: Path
) -> None:
    """Neither what it unpacked, nor what is kept and is not as it was when it was looked at."""
    channel.add("good", "1.0", {"x": b"right"}, subdir=PLATFORM)
    text = wants("good")
    await build(builder, text)
    cache = builder.cache.conda_cache
    [kept] = cache.glob("packages/good-1.0-0-*")
    left = cache / "unpacking" / "tmpleft" / kept.name
    unseen = cache / "packages" / "good-1.0-0"
    for each in (left, unseen):
        each.mkdir(parents=True)
    (tmp_path / "outside").write_bytes(b"wrong")
    (kept / "x").unlink()
    (kept / "x").symlink_to(tmp_path / "outside")
    made = await build(builder, text, rebuild=True)
    assert (builder.cache.path(made.ready.env_id) / "x").read_bytes() == b"right"
    assert not left.exists()
    assert not unseen.exists()
    assert not (kept / "x").is_symlink()


async def test_who_links_packages_sees_neither_logins_nor_network(
    secretive: Builder, channel: CondaChannel, tmp_path: Path
) -> None:
    spec, identity = await secretive.recognise(from_conda_yaml(wants("tool")))
    (tmp_path / "w").mkdir()
    made = await secretive._construction(spec, identity, BuildLog(lambda _: None), tmp_path / "w")
    assert isinstance(made, CondaConstruction)
    fetch, link = (made._worker(verb, tmp_path, tmp_path) for verb in ("fetch", "link"))
    for word in (str(tmp_path / "logins"), "--share-net"):
        assert word in fetch
        assert word not in link
    writable = [link[at + 1] for at, word in enumerate(link) if word == "--bind"]
    assert writable == [str(tmp_path / "w")]
