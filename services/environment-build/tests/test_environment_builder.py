"""Real builds from hand-made wheels: no network, the real installer, real interpreters."""

import asyncio
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stellwerk.environment_spec import EnvironmentDefinition, from_packages
from stellwerk_environment_build.builder import Builder, BuildResult
from stellwerk_environment_build.cache import READY
from stellwerk_environment_build.construction import Limits
from stellwerk_environment_build.failures import BuildFailedError, Failure
from stellwerk_environment_build.interpreters import find_interpreters
from stellwerk_environment_build.uv_command import IndexOptions

MakeWheel = Callable[..., Path]
MakeBuilder = Callable[..., Builder]


async def build(
    builder: Builder, *packages: str, log: list[str] | None = None, rebuild: bool = False
) -> BuildResult:
    spec, identity = builder.identify(from_packages(packages))
    lines = [] if log is None else log
    return await builder.build(spec, identity, lines.append, rebuild=rebuild)


async def failure(builder: Builder, *packages: str, log: list[str] | None = None) -> Failure:
    with pytest.raises(BuildFailedError) as caught:
        await build(builder, *packages, log=log)
    assert not list((builder.cache.root / ".building").iterdir())
    assert builder.cache.usage() == ()
    return caught.value.failure


def run_in(builder: Builder, result: BuildResult, code: str) -> str:
    python = builder.cache.python(result.ready.env_id)
    return subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True, env={}
    ).stdout.strip()


async def test_environment_is_locked_installed_compiled_and_found_again(
    make_wheel: MakeWheel, make_builder: MakeBuilder
) -> None:
    make_wheel("alpha", "1.0")
    make_wheel("alpha", "2.0", requires=("beta>=1",))
    make_wheel("beta", "1.5", {"beta/__init__.py": "x = 1\n", "beta/deep/mod.py": "y = 2\n"})
    builder, log = make_builder(), list[str]()
    result = await build(builder, "alpha", log=log)

    assert not result.cached
    assert result.ready.packages == ("alpha==2.0", "beta==1.5")
    assert run_in(builder, result, "import alpha, beta.deep.mod; print(alpha.VERSION)") == "2.0"
    folder = builder.cache.path(result.ready.env_id)
    lock = (folder / "requirements.lock").read_text()
    assert lock.count("--hash=sha256:") == 2
    assert "://" not in lock
    assert "/" not in lock
    modules = {path.name for path in folder.glob("lib/python3*/site-packages/**/*.pyc")}
    assert {name.split(".")[0] for name in modules} >= {"alpha", "__init__", "mod"}
    text = "\n".join(log)
    for phase in ("[1/4]", "[2/4]", "[3/4]", "[4/4]", "Resolved 2 packages", "+ alpha==2.0"):
        assert phase in text
    assert "Environment ready: 2 packages" in log[-1]

    again = await build(builder, "ALPHA")
    assert again.cached
    assert again.ready == result.ready


async def test_a_lock_decides_versions_and_files(
    make_wheel: MakeWheel, make_builder: MakeBuilder
) -> None:
    old = hashlib.sha256(make_wheel("alpha", "1.0").read_bytes()).hexdigest()
    make_wheel("alpha", "2.0")
    make_wheel("beta", "1.0")
    builder = make_builder()

    def wanting(digest: str) -> EnvironmentDefinition:
        return EnvironmentDefinition(
            pip_packages=("alpha", "beta"),
            constraints=("alpha==1.0", "gamma==3"),
            hashes={"alpha==1.0": (digest, "0" * 64)},
        )

    spec, identity = builder.identify(wanting("f" * 64))
    with pytest.raises(BuildFailedError) as caught:
        await builder.build(spec, identity, lambda _line: None)
    found = caught.value.failure
    assert (found.reason, found.code) == ("hash-mismatch", "env.hash_mismatch")
    assert "alpha==1.0" in found.message
    assert builder.cache.usage() == ()
    spec, identity = builder.identify(wanting(old))
    ready = (await builder.build(spec, identity, lambda _line: None)).ready
    assert ready.packages == ("alpha==1.0", "beta==1.0")


async def test_packages_come_from_the_configured_index(make_builder: MakeBuilder) -> None:
    builder = make_builder(index=IndexOptions(), environ=os.environ)
    result = await build(builder, "six==1.17.0", "idna")
    assert "six==1.17.0" in result.ready.packages
    assert run_in(builder, result, "import six, idna; print(six.__version__)") == "1.17.0"
    lock = builder.cache.path(result.ready.env_id) / "requirements.lock"
    assert "://" not in lock.read_text()


async def test_second_use_starts_no_process_and_reads_one_file(
    make_wheel: MakeWheel, make_builder: MakeBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel("alpha")
    builder = make_builder()
    result = await build(builder, "alpha")
    ready_file = builder.cache.path(result.ready.env_id) / READY
    os.utime(ready_file, (1, 1))

    def forbidden(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", forbidden)
    monkeypatch.setattr(subprocess, "Popen", forbidden)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        hit = await build(builder, "alpha")
        times.append(time.perf_counter() - began)
        assert hit.cached
    assert sorted(times)[10] < 0.005
    assert ready_file.stat().st_mtime > 1_000_000


async def test_empty_environment_can_be_built(make_builder: MakeBuilder) -> None:
    builder = make_builder()
    result = await build(builder)
    assert result.ready.packages == ()
    assert run_in(builder, result, "print('works')") == "works"


async def test_user_managed_environment_needs_no_build(make_builder: MakeBuilder) -> None:
    builder = make_builder()
    definition = EnvironmentDefinition(user_managed=True, interpreter="/opt/x/bin/python")
    spec, identity = builder.identify(definition)
    result = await builder.build(spec, identity, print)
    assert result.cached
    assert result.ready.interpreter == "/opt/x/bin/python"
    assert builder.cache.usage() == ()


async def test_conflict_is_the_users_and_keeps_the_resolvers_words(
    make_wheel: MakeWheel, make_builder: MakeBuilder
) -> None:
    make_wheel("alpha", "2.0", requires=("beta>=2",))
    make_wheel("beta", "1.0")
    make_wheel("beta", "2.0")
    found = await failure(make_builder(), "alpha", "beta<2")
    assert (found.reason, found.code, found.retryable) == ("your-spec", "env.unsatisfiable", False)
    assert "alpha" in found.message
    assert "you require beta<2" in found.message
    assert "cause:" not in found.message


async def test_missing_package_is_named(make_builder: MakeBuilder) -> None:
    found = await failure(make_builder(), "no-such-thing-anywhere==3")
    assert (found.reason, found.code) == ("your-spec", "env.unsatisfiable")
    assert "no-such-thing-anywhere" in found.message


async def test_source_distribution_is_refused_unless_allowed(
    make_builder: MakeBuilder, tmp_path: Path
) -> None:
    marker, source = tmp_path / "ran", tmp_path / "gamma-1.0"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: gamma\nVersion: 1.0\n")
    (tmp_path / "wheels").mkdir()
    shutil.make_archive(str(tmp_path / "wheels/gamma-1.0"), "gztar", tmp_path, "gamma-1.0")
    found = await failure(make_builder(), "gamma")
    assert (found.reason, found.code) == ("your-spec", "env.sdist_disallowed")
    assert "gamma" in found.message
    assert not marker.exists()


async def test_unreachable_index_is_not_the_users_fault(
    make_builder: MakeBuilder, tmp_path: Path
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://user:topsecret@127.0.0.1:{unused.getsockname()[1]}/simple"
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PIP_INDEX_URL": address,
            "UV_HTTP_RETRIES": "1",
        }
        log: list[str] = []
        builder = make_builder(index=IndexOptions(), environ=environ)
        found = await failure(builder, "alpha", log=log)
    assert (found.reason, found.retryable) == ("index-unreachable", True)
    assert "topsecret" not in found.message + "".join(log)
    (said,) = [number for number, line in enumerate(log) if "does not answer, retry 1" in line]
    (over,) = [number for number, line in enumerate(log) if "not built" in line]
    assert said < over, "told while it is tried"


async def test_altered_file_fails_the_hash_check(
    make_wheel: MakeWheel, make_builder: MakeBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel("alpha")
    builder = make_builder()

    def exchange(name: str) -> None:
        if name == "environment-build.resolved":
            shutil.rmtree(builder.cache.installer_cache)
            make_wheel("alpha", files={"alpha.py": "import os  # not what was locked\n"})

    monkeypatch.setattr("stellwerk_environment_build.builder.failpoint", exchange)
    found = await failure(builder, "alpha")
    assert (found.reason, found.code) == ("hash-mismatch", "env.hash_mismatch")
    assert "alpha==1.0" in found.message


async def test_wheel_that_reaches_out_stays_inside(
    make_wheel: MakeWheel, make_builder: MakeBuilder, tmp_path: Path
) -> None:
    outside = tmp_path / "absolute.py"
    make_wheel("evil", files={"../../../../../up.py": "", str(outside): "", "evil.py": "x = 1\n"})
    builder = make_builder()
    result = await build(builder, "evil")
    assert run_in(builder, result, "import evil; print(evil.x)") == "1"
    assert not outside.exists()
    assert not list(tmp_path.rglob("up.py"))


async def test_link_in_a_wheel_becomes_a_plain_file(
    make_wheel: MakeWheel, make_builder: MakeBuilder
) -> None:
    wheel = make_wheel("linked")
    entry = zipfile.ZipInfo("linked_data/passwd")
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(entry, "/etc/passwd")
    builder = make_builder()
    result = await build(builder, "linked")
    [planted] = builder.cache.path(result.ready.env_id).rglob("linked_data/passwd")
    assert not planted.is_symlink()


@pytest.mark.parametrize("content", [b"no archive at all", b""])
async def test_broken_wheel_is_the_specs_fault(
    make_wheel: MakeWheel, make_builder: MakeBuilder, content: bytes
) -> None:
    make_wheel("broken").write_bytes(content)
    found = await failure(make_builder(), "broken")
    assert (found.reason, found.code, found.retryable) == ("your-spec", "env.wheel_invalid", False)
    assert "broken" in found.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"RECORD": None}, "broken-1.0.dist-info/RECORD"),
        ({"RECORD": '"unclosed\n'}, "`RECORD` file is invalid"),
        ({"RECORD": "only-one-field\n"}, "`RECORD` file is invalid"),
        ({"WHEEL": "nothing\n"}, "WHEEL"),
        ({"WHEEL": None}, "WHEEL"),
        ({"entry_points.txt": "[console_scripts]\n../../../evil = broken:x\n"}, "Script path must"),
    ],
)
async def test_wheel_that_contradicts_itself_is_the_specs_fault(
    make_wheel: MakeWheel,
    make_builder: MakeBuilder,
    tmp_path: Path,
    changes: dict[str, str | None],
    words: str,
) -> None:
    whole = make_wheel("broken")
    changed = {f"broken-1.0.dist-info/{name}": text for name, text in changes.items()}
    with zipfile.ZipFile(whole) as archive:
        contents = {name: archive.read(name).decode() for name in archive.namelist()}
    with zipfile.ZipFile(whole, "w") as archive:
        for name, text in {**contents, **changed}.items():
            if text is not None:
                archive.writestr(name, text)
    found = await failure(make_builder(), "broken")
    assert (found.reason, found.code, found.retryable) == ("your-spec", "env.wheel_invalid", False)
    assert words in found.message
    assert str(tmp_path) not in found.message
    assert not list(tmp_path.rglob("evil"))


async def test_more_files_than_an_environment_may_have(
    make_wheel: MakeWheel, make_builder: MakeBuilder
) -> None:
    make_wheel("many", files={f"many/{number}.txt": "" for number in range(300)})
    found = await failure(make_builder(limits=Limits(workers=1, files=200)), "many")
    assert (found.reason, found.code) == ("your-spec", "env.too_many_files")
    assert "more than 200 files" in found.message
    assert (await build(make_builder(limits=Limits(workers=1, files=400)), "many")).ready.packages


async def test_pth_code_of_a_package_does_not_run_while_it_is_built(
    make_wheel: MakeWheel, make_builder: MakeBuilder, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    make_wheel(
        "nosy", files={"nosy.py": "", "nosy.pth": f"import os; open({str(marker)!r}, 'w')\n"}
    )
    builder = make_builder()
    result = await build(builder, "nosy")
    assert not marker.exists()
    run_in(builder, result, "pass")
    assert marker.exists()


async def test_module_that_is_no_python_does_not_fail_the_build(
    make_wheel: MakeWheel, make_builder: MakeBuilder
) -> None:
    make_wheel(
        "templates", files={"templates/bad.py": "def {{ name }}:\n", "templates/good.py": ""}
    )
    builder = make_builder()
    result = await build(builder, "templates")
    compiled = builder.cache.path(result.ready.env_id).rglob("good.*.pyc")
    assert len(list(compiled)) == 1


async def test_rebuild_replaces_the_environment(
    make_wheel: MakeWheel, make_builder: MakeBuilder
) -> None:
    make_wheel("alpha", "1.0")
    builder = make_builder()
    first = await build(builder, "alpha")
    make_wheel("alpha", "2.0")
    assert (await build(builder, "alpha")).ready.packages == ("alpha==1.0",)
    second = await build(builder, "alpha", rebuild=True)
    assert second.ready.packages == ("alpha==2.0",)
    assert second.ready.env_id == first.ready.env_id
    assert run_in(builder, second, "import alpha; print(alpha.VERSION)") == "2.0"


async def test_concurrent_builders_of_one_environment_build_once(
    make_wheel: MakeWheel, make_builder: MakeBuilder
) -> None:
    make_wheel("alpha")
    builders = [make_builder() for _ in range(3)]
    logs: list[list[str]] = [[] for _ in builders]
    results = await asyncio.gather(
        *(build(each, "alpha", log=log) for each, log in zip(builders, logs, strict=True))
    )
    assert sorted(result.cached for result in results) == [False, True, True]
    assert sum("[1/4]" in line for log in logs for line in log) == 1
    assert len({result.ready for result in results}) == 1


async def test_different_environments_build_side_by_side(
    make_wheel: MakeWheel, make_builder: MakeBuilder
) -> None:
    for name in ("alpha", "beta", "gamma"):
        make_wheel(name)
    builder = make_builder()
    results = await asyncio.gather(*(build(builder, name) for name in ("alpha", "beta", "gamma")))
    assert {result.ready.packages for result in results} == {
        ("alpha==1.0",),
        ("beta==1.0",),
        ("gamma==1.0",),
    }


async def test_full_disk_is_said(
    make_wheel: MakeWheel, make_builder: MakeBuilder, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        make_wheel("big", files={"big.py": "x = '" + os.urandom(1_000_000).hex() + "'\n"})
        found = await failure(make_builder(root=small), "big")
    finally:
        subprocess.run(["umount", small], check=True)
    assert (found.reason, found.code, found.retryable) == ("disk-full", "env.disk_full", True)


async def test_interpreters_of_this_machine_are_found() -> None:
    found = await find_interpreters()
    assert found[0].version == ".".join(str(part) for part in sys.version_info[:3])
    assert len({each.version for each in found}) == len(found)
    assert all(each.path.exists() for each in found)
