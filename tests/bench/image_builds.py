"""Environments as images: of packages seen before and of unseen ones, in a registry and without.

Every build is beside a bare install of the same lock from the same warm cache of the installer.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from measure import Report, summary, timed

PACKAGES = ("tensorflow-cpu==2.21.*",)
ROUNDS = 5
EXTRAS = tuple(f"small-figure-{number}" for number in range(ROUNDS))
"""Small packages that make environments differ."""
ADDED = "small-figure-added"
PYTHON = "/usr/bin/python3.11"
"""Debian's: on this machine and in the tests' base image at the same place."""


async def image_builds(base: str, folder: Path, report: Report) -> None:
    """All figures of images, with a registry and without."""
    from servers_in_containers import registry

    for name in (*EXTRAS, ADDED):
        _wheel(folder / "wheels", name)
    for way, place in (("registry", registry()), ("engine", nullcontext(None))):
        with place as host, forgotten(host):
            await Figures(way, base, host, folder, report).measure()


class Figures:
    """Those of one way: ``host`` is the registry's, None leaves images in the engine."""

    def __init__(self, way: str, base: str, host: str | None, folder: Path, report: Report) -> None:
        self.way, self.base, self.host, self.folder = way, base, host, folder
        self.report = report
        self.log: list[str] = []

    async def measure(self) -> None:
        """Report them."""
        self.builder = await _builder(self.folder, self.base, self.host)
        await self._build(EXTRAS[0])  # the base is there, its Python tried
        self.builder._images, images = None, self.builder._images
        warming = await self._build(*PACKAGES, *EXTRAS)
        self.builder._images = images
        self.builder.cache.discard(warming.env_id)  # what stays is the installer's cache
        unseen, first = await self._timed(*PACKAGES, *EXTRAS)
        bare, compiled = (self._installed(first, compile_it=each)[0] for each in (False, True))
        self._row("unseen_over_bare_install", unseen / bare, "ratio", "—", True, seconds=unseen,
                  bare=bare, over_compiled=unseen / compiled)  # fmt: skip
        seen, bares, compileds = [], [], []
        cpu = {"ours": 0.0, "bare": 0.0}
        for extra in EXTRAS:
            before = _cpu()
            took, new = await self._timed(*PACKAGES, extra)
            seen.append(took)
            cpu["ours"] += _cpu() - before
            alone, spent = self._installed(new, compile_it=False)
            bares.append(alone)
            cpu["bare"] += spent
            compileds.append(self._installed(new, compile_it=True)[0])
        ratio, plain = statistics.median(seen), statistics.median(bares)
        self._row("new_over_bare_install", ratio / plain, "ratio", "<= 3", ratio <= 3 * plain,
                  ours=summary(seen), bare=summary(bares), moved=self._moved(),
                  cpu_ratio=cpu["ours"] / cpu["bare"],
                  over_compiled=ratio / statistics.median(compileds))  # fmt: skip
        again, _ = await self._timed(*PACKAGES, EXTRAS[0])
        self._row("second_request", again * 1000, "ms", "<= 100", again <= 0.1)
        self.log.clear()
        added, _ = await self._timed(*PACKAGES, EXTRAS[0], ADDED)
        self._row("one_package_more", added, "s", "<= 15", added <= 15, moved=self._moved())
        if self.host is not None:
            one, two = (timed(lambda each=each: _pull(each)) for each in (first, new))
            self._row("pulled_by_a_node", one, "s", "—", True, another_with_most_layers=two)

    async def _build(self, *packages: str) -> Any:
        from stellwerk.environment_spec import from_packages

        spec, identity = self.builder.identify(from_packages(packages))
        return (await self.builder.build(spec, identity, self.log.append)).ready

    async def _timed(self, *packages: str) -> tuple[float, Any]:
        started = time.perf_counter()
        ready = await self._build(*packages)
        return time.perf_counter() - started, ready

    def _moved(self) -> str:
        return [line.strip() for line in self.log if " moved" in line][-1].partition(", sha256")[0]

    def _row(self, name: str, value: float, unit: str, goal: str, met: bool, **more: Any) -> None:
        rounded = {
            key: round(each, 3) if isinstance(each, float) else each for key, each in more.items()
        }
        self.report.add(f"images.{name}", value, unit, goal, met, way=self.way, **rounded)

    def _installed(self, ready: Any, *, compile_it: bool) -> tuple[float, float]:
        """Seconds, and those of CPU, of the installer alone, into a new environment."""
        from stellwerk_environment_build import uv_command
        from stellwerk_environment_build.cache import LOCK

        cache, target = self.builder.cache, self.folder / "bare"
        shutil.rmtree(target, ignore_errors=True)
        environ = uv_command.uv_environment(
            os.environ,
            cache=cache.installer_cache,
            config_file=uv_command.operator_config(os.environ),
        )
        command = [
            uv_command.uv_binary(), "pip", "install", "--quiet", "--require-hashes",
            "-r", str(cache.path(ready.env_id) / LOCK), "--find-links", str(self.folder / "wheels"),
            "--python", str(target / "bin" / "python"),
            *(["--compile-bytecode"] if compile_it else []),
        ]  # fmt: skip

        def work() -> None:
            made = uv_command.create_command(target, Path(PYTHON))
            subprocess.run(made, env=environ, check=True, capture_output=True)
            subprocess.run(command, env=environ, check=True, capture_output=True)

        before = _cpu()
        return timed(work), _cpu() - before


async def _builder(folder: Path, base: str, host: str | None) -> Any:
    """A builder that has built nothing; both ways share the installer's cache."""
    from stellwerk_environment_build.builder import Builder
    from stellwerk_environment_build.cache import EnvironmentCache
    from stellwerk_environment_build.image_engine import ImageSettings
    from stellwerk_environment_build.images import ImageMaker
    from stellwerk_environment_build.interpreters import find_interpreters
    from stellwerk_environment_build.uv_command import IndexOptions

    cache = EnvironmentCache(folder / "cache")
    for ready in list(cache.all_ready()):
        cache.discard(ready.env_id)
    shutil.rmtree(cache.layers, ignore_errors=True)
    found = await find_interpreters((Path(PYTHON),))
    return Builder(
        cache,
        [each for each in found if str(each.path) == PYTHON],
        index=IndexOptions(find_links=(folder / "wheels",)),
        images=ImageMaker(ImageSettings(base, host)),
    )


def _cpu() -> float:
    """Seconds of this process and of those that it started; not the engine's, nor a registry's."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _pull(ready: Any) -> None:
    from engine import client

    client().api.pull(str(ready.image))


@contextmanager
def forgotten(host: str | None) -> Iterator[None]:
    """Without the images of environments in the engine, afterwards too."""
    from engine import client

    prefix = f"{host}/" if host else ""
    try:
        yield
    finally:
        for image in client().images.list(name=f"{prefix}stellwerk/environment"):
            client().images.remove(image.id, force=True)


def _wheel(folder: Path, name: str) -> None:
    sys.path.append(str(Path(__file__).parents[1] / "docker"))
    from environments import wheel

    folder.mkdir(exist_ok=True)
    wheel(folder, name.replace("-", "_"))
