"""Modules that an environment shares with another are compiled once."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from stellwerk.environment_spec import from_packages
from stellwerk_environment_build.builder import Builder
from stellwerk_environment_build.compiled_reuse import Donor, choose


def inode(builder: Builder, env_id: str, name: str) -> int:
    (path,) = builder.cache.path(env_id).glob(f"lib/*/site-packages/__pycache__/{name}.*.pyc")
    return path.stat().st_ino


async def built(builder: Builder, *packages: str) -> tuple[str, list[str]]:
    log: list[str] = []
    spec, identity = builder.identify(from_packages(packages))
    await builder.build(spec, identity, log.append)
    return identity, [line for line in log if "Compiling" in line]


async def test_only_news_are_compiled(
    make_builder: Callable[..., Builder], make_wheel: Callable[..., Path]
) -> None:
    for name in ("alpha", "beta"):
        make_wheel(name)
    builder = make_builder()
    first, log = await built(builder, "alpha")
    assert log == ["[3/4] Compiling 1 modules, so that imports are quick"]
    second, log = await built(builder, "alpha", "beta")
    assert log == ["[3/4] Compiling 1 modules, so that imports are quick"]
    assert inode(builder, second, "alpha") == inode(builder, first, "alpha")
    builder.cache.discard(first)
    code = "import alpha; print(alpha.__cached__, alpha.__file__, alpha.VERSION)"
    said = subprocess.run(
        [builder.cache.python(second), "-v", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    cached, file, version = said.stdout.split()
    assert (Path(cached).exists(), version) == (True, "1.0")
    assert f"code object from '{cached}'" in said.stderr, "taken as it is, not compiled again"
    assert second in file


async def test_another_source_under_the_same_name_is_compiled(
    make_builder: Callable[..., Builder], make_wheel: Callable[..., Path]
) -> None:
    make_wheel("alpha", "1.0")
    make_wheel("alpha", "2.0")
    builder = make_builder()
    first, _ = await built(builder, "alpha==1.0")
    second, log = await built(builder, "alpha==2.0")
    assert log
    assert inode(builder, second, "alpha") != inode(builder, first, "alpha")
    said = subprocess.run(
        [builder.cache.python(second), "-c", "import alpha; print(alpha.VERSION)"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )
    assert said.stdout == "2.0\n"


def test_few_donors_that_have_most() -> None:
    def donor(name: str, *packages: str) -> Donor:
        return Donor(Path(name), frozenset(packages))

    last, large, other = donor("last", "a", "x"), donor("large", "a", "b", "c"), donor("o", "d")
    assert choose([last, large, other], ["a", "b", "d", "e"]) == [large.path, other.path]
    assert choose([last, large], ["a"]) == [last.path]
    assert choose([last], ["b"]) == []
    assert choose([], ["b"]) == []


async def test_what_is_compiled_tells_neither_when_nor_where(
    make_builder: Callable[..., Builder], make_wheel: Callable[..., Path]
) -> None:
    """So it is valid as a copy with another time at another place."""
    make_wheel("alpha")
    builder = make_builder()
    first, _ = await built(builder, "alpha")
    (path,) = builder.cache.path(first).glob("lib/*/site-packages/__pycache__/alpha.*.pyc")
    data = path.read_bytes()
    assert int.from_bytes(data[4:8], "little") == 1, "by hash, and not compared"
    assert str(builder.cache.root).encode() not in data
