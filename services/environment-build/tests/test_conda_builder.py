"""Conda packages for real: solved, locked and installed from a channel made here."""

import asyncio
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import rattler
from conda_building import build, failure, wants
from conda_channel import MINOR, PLACEHOLDER, PLATFORM, VERSION, CondaChannel

from stellwerk.environment_spec import InvalidEnvironment, from_conda_yaml
from stellwerk.events.image import IMAGE_ENVIRONMENT
from stellwerk_environment_build.builder import Builder, BuildResult
from stellwerk_environment_build.conda_channels import ChannelSettings, worker_command
from stellwerk_environment_build.conda_prefix import moved
from stellwerk_environment_build.construction import Limits
from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.image_engine import archive
from stellwerk_environment_build.image_layers import REST, layers_of

MakeWheel = Callable[..., Path]
MakeBuilder = Callable[..., Builder]


def run_in(builder: Builder, result: BuildResult, *words: str) -> str:
    folder = builder.cache.path(result.ready.env_id)
    command = [folder / "bin" / words[0], *words[1:]]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env={}
    ).stdout.strip()


async def test_conda_packages_and_the_pip_section_are_one_environment(
    builder: Builder, channel: CondaChannel, make_wheel: MakeWheel
) -> None:
    channel.add_module("deep", "1.5")
    channel.add_module("tool", "2.0", ["deep >=1"])
    channel.add_module("tool", "2.1", ["deep >=1"])
    config = {"etc/place.conf": f"home = {PLACEHOLDER}/share\n".encode()}
    binary = {"lib/place.bin": b"\0\1" + PLACEHOLDER.encode() + b"/lib\0\0rest"}
    channel.add("place", "1.0", config | binary, subdir=PLATFORM)
    make_wheel("alpha", "1.0", requires=("deep>=1",))
    make_wheel("deep", "9.0")
    log: list[str] = []
    result = await build(builder, wants("Tool=2", "place", pip=("alpha",)), log)

    assert result.ready.python == VERSION
    assert result.ready.packages == (
        "alpha==1.0", "deep=1.5=0", "place=1.0=0", f"python={VERSION}=0", "tool=2.1=0",
    )  # fmt: skip
    code = "import alpha, deep, tool, sys; print(alpha.VERSION, deep.VERSION, tool.VERSION, sys.prefix)"
    folder = builder.cache.path(result.ready.env_id)
    assert run_in(builder, result, "python", "-c", code) == f"1.0 1.5 2.1 {folder}"
    assert run_in(builder, result, "tool-says") == "2.1"
    assert (folder / "etc/place.conf").read_text() == f"home = {folder}/share\n"
    assert f"{folder}/lib\0".encode() in (folder / "lib/place.bin").read_bytes()
    lock = (folder / "requirements.lock").read_text()
    assert f"#conda ours/{PLATFORM}/place-1.0-0.tar.bz2 sha256=" in lock
    assert lock.count("--hash=sha256:") == 1
    assert "://" not in lock
    assert str(folder.parent / ".building") not in lock
    assert list(folder.glob(f"lib/python{MINOR}/site-packages/__pycache__/tool.*.pyc"))
    text = "\n".join(log)
    for words in ("[1/4] Solving 3 conda packages from ours", "+ tool", "[2/4]", "[3/4]", "[4/4]"):
        assert words in text
    assert (await build(builder, wants("place", "tool =2.*", pip=("Alpha",)))).cached


async def test_pip_section_replaces_what_does_not_fit_and_says_so(
    builder: Builder, channel: CondaChannel, make_wheel: MakeWheel
) -> None:
    channel.add_module("deep", "1.5")
    make_wheel("deep", "2.0")
    log: list[str] = []
    result = await build(builder, wants("deep", pip=("deep>=2",)), log)
    assert run_in(builder, result, "python", "-c", "import deep; print(deep.VERSION)") == "2.0"
    assert "Warning: the pip section replaces conda's deep 1.5" in "\n".join(log)


async def test_recorded_lock_is_installed_again_though_the_channel_has_newer_ones(
    builder: Builder, channel: CondaChannel, make_wheel: MakeWheel
) -> None:
    from stellwerk.runspec import EnvironmentPin

    channel.add_module("tool", "1.0")
    make_wheel("alpha", "1.0")
    text = wants("tool", pip=("alpha",))
    first = await build(builder, text)
    channel.add_module("tool", "2.0")
    make_wheel("alpha", "2.0")
    second = await build(builder, text, rebuild=True)
    assert "tool=2.0=0" in second.ready.packages
    spec, identity = await builder.recognise(from_conda_yaml(text))
    pin = EnvironmentPin(env_id=identity, lock_digest=first.ready.lock_digest)
    locked, other = builder.identify_pinned(spec, pin)
    again = await builder.build(locked, other, lambda _line: None)
    assert again.ready.packages == first.ready.packages
    assert again.ready.lock_digest == first.ready.lock_digest
    (channel.folder / "noarch" / "tool-1.0-0.tar.bz2").unlink()
    channel.index()
    with pytest.raises(BuildFailedError) as caught:
        await builder.build(locked, other, lambda _line: None, rebuild=True)
    assert caught.value.failure.code == "env.lock_gone"
    assert "tool-1.0-0.tar.bz2" in caught.value.failure.message


async def test_in_an_image_it_knows_its_place(
    builder: Builder, channel: CondaChannel, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    channel.add_module("tool", "1.0")
    binary = b"\0\1" + PLACEHOLDER.encode() + b"/lib\0\0rest"
    channel.add("place", "1.0", {"lib/place.bin": binary}, subdir=PLATFORM)
    make_wheel("alpha", "1.0")
    result = await build(builder, wants("tool", "place", pip=("alpha",)))
    folder, place = builder.cache.path(result.ready.env_id), tmp_path / "at"
    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    entries = ((path, str(place / path.relative_to(folder))) for path in paths)
    packed = io.BytesIO(b"".join(archive(entries, moved(folder, str(place)))))
    with tarfile.open(fileobj=packed) as files:
        files.extractall(tmp_path.root, filter="fully_trusted")
    shutil.rmtree(folder)
    assert (place / "lib/place.bin").read_bytes()[:-4].rstrip(b"\0") == (
        b"\0\1" + str(place).encode() + b"/lib"
    )
    assert (place / "lib/place.bin").read_bytes().endswith(b"\0\0rest")
    assert len((place / "lib/place.bin").read_bytes()) == len(binary)
    said = subprocess.run([place / "bin/tool-says"], check=True, capture_output=True, env={})
    assert said.stdout == b"1.0\n"


async def test_its_packages_are_layers_that_another_environment_has_as_well(
    builder: Builder, channel: CondaChannel, make_wheel: MakeWheel
) -> None:
    """Conda packages and those of the pip section, scripts and files that name the place too."""
    says = {
        "alpha.py": "",
        "alpha-1.0.dist-info/entry_points.txt": "[console_scripts]\nsay = a:b\n",
    }
    make_wheel("alpha", "1.0", says)
    for name in ("tool", "other"):
        channel.add_module(name, "1.0")
    channel.add("place", "1.0", {"etc/place": PLACEHOLDER.encode()}, subdir=PLATFORM)
    channel.add("more", "1.0", {"share/more": b"1"}, subdir=PLATFORM)
    one = (await build(builder, wants("tool", "place", pip=("alpha",)))).ready
    two = (await build(builder, wants("tool", "place", "more", pip=("alpha",)))).ready
    (first, second) = (_layers(builder.cache.path(each.env_id), one.python) for each in (one, two))
    shared = {f"python-{VERSION}-0", "tool-1.0-0", "place-1.0-0", "alpha-1.0"}
    assert first.keys() == {*shared, REST}
    assert second.keys() == {*shared, "more-1.0-0", REST}
    assert {title for title in first if first[title] == second[title]} == shared
    for meta in builder.cache.path(one.env_id).glob("conda-meta/*"):
        assert one.env_id not in meta.read_text()
        assert channel.address not in meta.read_text()
    meta = builder.cache.path(one.env_id) / "conda-meta/tool-1.0-0.json"
    assert rattler.PrefixRecord.from_path(meta).channel == "ours"  # still one that tools read


def _layers(folder: Path, python: str | None) -> dict[str, str | None]:
    found = layers_of(folder, python, moved(folder, IMAGE_ENVIRONMENT))
    return {each.title: each.key or str(folder) for each in found}


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (wants("tool>=7"), "env.unsatisfiable", "tool >=7"),
        (wants("unheard-of"), "env.unsatisfiable", "unheard-of"),
        (wants("tool", python="2.7"), "env.unsatisfiable", "python"),
        (wants("tool", channels="theirs"), "env.channel_unknown", "channel theirs"),
        (wants("tool=1!!2"), "env.conda_package", "!!"),
        (wants("tool", pip=("alpha>9",)), "env.unsatisfiable", "alpha>9"),
    ],
)
async def test_what_cannot_be_had_is_the_specs_fault_in_the_solvers_words(
    make_builder: MakeBuilder, channel: CondaChannel, text: str, code: str, words: str
) -> None:
    channel.add_module("tool", "1.0")
    addresses = {"ours": channel.address, "theirs": f"{channel.address}-of-others"}
    builder = make_builder(channels=ChannelSettings("channels", addresses))
    if "2.7" in text:
        text = text.replace("python=2.7", "python=3.6")
    found = await failure(builder, text)
    assert (found.reason, found.code, found.retryable) == ("your-spec", code, False)
    assert words in found.message


async def test_address_in_a_definition_is_refused_unless_the_operator_named_it(
    builder: Builder, channel: CondaChannel
) -> None:
    channel.add_module("tool", "1.0")
    spec, _ = await builder.recognise(from_conda_yaml(wants("tool", channels=channel.address)))
    assert spec.conda is not None
    assert spec.conda.channels == ("ours",)
    with pytest.raises(InvalidEnvironment) as caught:
        await builder.recognise(
            from_conda_yaml(wants("tool", channels="https://example.invalid/c"))
        )
    assert (caught.value.code, caught.value.field) == ("env.channel", "channels[0]")


async def test_altered_package_fails_the_hash_check(
    builder: Builder, channel: CondaChannel
) -> None:
    path = channel.add_module("tool", "1.0")
    data = path.read_bytes()
    channel.add_module("tool", "1.0", ["deep"])
    path.write_bytes(data)
    index = channel.folder / "noarch" / "repodata.json"
    index.write_text(
        index.read_text().replace('"depends": ["python >=3.8", "deep"]', '"depends": []')
    )
    found = await failure(builder, wants("tool"))
    assert (found.reason, found.code) == ("hash-mismatch", "env.hash_mismatch")


async def test_broken_index_and_broken_package(builder: Builder, channel: CondaChannel) -> None:
    path = channel.add_module("tool", "1.0")
    path.write_bytes(b"this is no archive")
    from conda_channel import _sha256

    index = channel.folder / "noarch" / "repodata.json"
    content = json.loads(index.read_text())
    content["packages"][path.name]["sha256"] = _sha256(b"this is no archive")
    index.write_text(json.dumps(content))
    found = await failure(builder, wants("tool"))
    assert (found.reason, found.code) == ("your-spec", "env.conda_package_broken")
    index.write_text("{ this is no JSON")
    found = await failure(builder, wants("tool"))
    assert (found.reason, found.code) == ("index-unreachable", "env.channel_broken")


async def test_auto_takes_channels_that_answer_and_the_index_where_none_does(
    make_builder: MakeBuilder, make_wheel: MakeWheel, channel: CondaChannel, served: Any
) -> None:
    channel.add_module("numpy", "1.5")
    make_wheel("numpy", "1.5")
    place = f"http://127.0.0.1:{served.server_address[1]}"
    there = make_builder(channels=ChannelSettings("auto", {"ours": f"{place}/channel"}))
    result = await build(there, wants("numpy"))
    assert "numpy=1.5=0" in result.ready.packages
    away = make_builder(channels=ChannelSettings("auto", {"ours": "http://127.0.0.1:9/channel"}))
    fallback = await build(away, wants("numpy"))
    assert fallback.ready.packages == ("numpy==1.5",)
    assert "conda packages are installed from the Python package index here" in "".join(
        fallback.ready.warnings
    )
    unknown = await failure(
        make_builder(
            root=channel.folder.parent / "other",
            channels=ChannelSettings("auto", {"ours": f"{place}/nothing"}),
        ),
        wants("numpy"),
    )
    assert unknown.code == "env.channel_unknown"
    gone = make_builder(
        root=channel.folder.parent / "third",
        channels=ChannelSettings("channels", {"ours": "http://127.0.0.1:9/channel"}),
    )
    found = await failure(gone, wants("numpy"))
    assert (found.reason, found.code, found.retryable) == (
        "index-unreachable", "env.channel_unreachable", True,
    )  # fmt: skip


async def test_fifty_definitions_at_once_ask_a_channel_once(
    make_builder: MakeBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    builder = make_builder(channels=ChannelSettings("auto", {"ours": "http://127.0.0.1:9/c"}))
    probe = builder._channels._probe

    async def counted(names: tuple[str, ...]) -> tuple[str, ...]:
        asked.append(names)
        return await probe(names)

    monkeypatch.setattr(builder._channels, "_probe", counted)
    definition = from_conda_yaml(wants("numpy"))
    found = await asyncio.gather(*(builder.recognise(definition) for _ in range(50)))
    assert asked == [("ours",)]
    assert len({identity for _, identity in found}) == 1
    assert found[0][0].conda is None


async def test_silent_channel_ends_at_the_limit_and_leaves_no_process(
    make_builder: MakeBuilder, hanging_index: str
) -> None:
    builder = make_builder(
        channels=ChannelSettings("channels", {"ours": hanging_index}),
        limits=Limits(resolve_s=1.5, heartbeat_s=0.5),
    )
    found = await failure(builder, wants("tool"))
    assert (found.reason, found.code) == ("timeout", "env.build_timeout")


async def test_killed_worker_is_not_the_users_fault_and_the_next_build_succeeds(
    make_builder: MakeBuilder, channel: CondaChannel, hanging_index: str
) -> None:
    channel.add_module("tool", "1.0")
    builder = make_builder(channels=ChannelSettings("channels", {"ours": hanging_index}))
    task = asyncio.ensure_future(failure(builder, wants("tool")))
    workers: list[psutil.Process] = []
    while not workers:
        await asyncio.sleep(0.01)
        for each in builder.cache.root.glob(".building/*/process"):
            if pid := each.read_text().partition(" ")[0]:
                below = psutil.Process(int(pid)).children(recursive=True)
                workers = [one for one in below if "solve" in one.cmdline() and not one.children()]
    workers[0].kill()
    found = await task
    assert (found.reason, found.code) == ("killed", "env.build_killed")
    well = make_builder(channels=ChannelSettings("channels", {"ours": channel.address}))
    assert "tool=1.0=0" in (await build(well, wants("tool"))).ready.packages


async def test_only_python_and_pip_stay_with_the_machines_interpreter(
    builder: Builder, make_wheel: MakeWheel
) -> None:
    make_wheel("alpha", "1.0")
    result = await build(builder, wants("pip", pip=("alpha",)))
    assert result.ready.packages == ("alpha==1.0",)
    assert (builder.cache.path(result.ready.env_id) / "pyvenv.cfg").exists()


async def test_package_from_a_channel_of_its_own(
    builder: Builder, channel: CondaChannel, make_builder: MakeBuilder, tmp_path: Path
) -> None:
    other = CondaChannel(tmp_path / "other")
    other.add_module("tool", "3.0")
    addresses = {"ours": channel.address, "theirs": other.address}
    both = make_builder(channels=ChannelSettings("channels", addresses))
    result = await build(both, wants("theirs::tool"))
    assert "tool=3.0=0" in result.ready.packages
    with pytest.raises(InvalidEnvironment) as caught:
        await build(builder, wants("theirs::tool"))
    assert caught.value.code == "env.channel"


async def test_what_the_worker_did_not_expect_shows_no_places(tmp_path: Path) -> None:
    request, answer = tmp_path / "request", tmp_path / "answer"
    request.write_text(json.dumps({"channels": ["ours"], "packages": ["a::b"], "cache": "/proc/x"}))
    done = subprocess.run(
        worker_command("nothing", request, answer), check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert json.loads(answer.read_text())["error"] == "internal"
    assert "Traceback" not in done.stdout + done.stderr
    assert str(tmp_path) not in done.stdout + done.stderr
