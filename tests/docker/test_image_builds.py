"""Environments as images: made by the engine, pushed to a registry, run by digest, nothing left."""

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import environments
import httpx2
import images as stand_ins
import pytest
import servers_in_containers
from docker.errors import ImageNotFound, NotFound
from engine import client
from environments import builder, failing, run

from stellwerk.environment_spec import from_packages
from stellwerk.events.image import IMAGE_ENVIRONMENT
from stellwerk_environment_build import image_delivery
from stellwerk_environment_build.builder import Builder, BuildResult
from stellwerk_environment_build.cache import READY
from stellwerk_environment_build.failures import Failure
from stellwerk_environment_build.image_engine import NAME, ImageSettings, push
from stellwerk_environment_build.images import ImageMaker
from stellwerk_environment_build.pruning import Pruner, Wanted
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.registry_logins import RegistryLogins
from stellwerk_kit.testing.servers import free_port


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """``host:port`` of a registry."""
    with servers_in_containers.registry() as host:
        yield host
        for prefix in (f"{host}/", ""):
            for image in client().images.list(name=f"{prefix}stellwerk/environment"):
                client().images.remove(image.id, force=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sw-env-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Nothing of a build is there that was not before; others may use the engine meanwhile."""
    before = state()
    yield
    assert state() - before == set()


def state() -> set[str]:
    """Containers that make images, and images without any name."""
    engine = client().api
    containers = engine.containers(all=True, filters={"name": f"^/{NAME}"})
    found = engine.images(filters={"dangling": True})
    nameless = [each for each in found if set(each["RepoDigests"] or ()) <= {"<none>@<none>"}]
    return {each["Id"] for each in [*containers, *nameless]}


async def build(
    made: Builder, log: list[str] | None = None, *, packages: tuple[str, ...] = ("alpha",)
) -> BuildResult:
    return await environments.build(made, from_packages(packages), log)


def pulled(result: BuildResult) -> Any:
    """The image, in this engine as on a node."""
    client().api.pull(str(result.ready.image))
    return client().images.get(str(result.ready.image))


async def failure(folder: Path, settings: ImageSettings) -> Failure:
    return await failing(await builder(folder, settings), from_packages(["alpha"]))


async def test_pushed_and_run_by_digest(folder: Path, registry: str) -> None:
    settings = ImageSettings(stand_ins.base(), registry)
    made, log = await builder(folder, settings), list[str]()
    result = await build(made, log)
    assert not result.cached
    image = str(result.ready.image)
    assert image.startswith(f"{registry}/stellwerk/environment@sha256:"), image
    assert any(line.startswith("[5/5] Making an image") for line in log), log

    with pytest.raises(ImageNotFound):  # the builder's engine needs none
        client().images.get(image)
    client().api.pull(image)  # what another node does
    code = "import alpha, sys; print(alpha.WORD, sys.prefix, alpha.__cached__)"
    word, prefix, cached = run(image, code, user="12345", read_only=True).rsplit(" ", 2)
    assert (word, prefix) == ("from alpha", IMAGE_ENVIRONMENT)
    assert run(image, f"import os; print(os.path.exists({cached.strip()!r}))") == "True\n"

    started = time.monotonic()
    again = await build(made)
    assert again.cached
    assert again.ready.image == image
    assert time.monotonic() - started < 0.1


async def test_layers_of_the_base_are_shared_and_nothing_of_this_machine_is_inside(
    folder: Path, registry: str
) -> None:
    result = await build(await builder(folder, ImageSettings(stand_ins.base(), registry)))
    image = pulled(result)
    base = client().images.get(stand_ins.base())
    layers = image.attrs["RootFS"]["Layers"]
    below = base.attrs["RootFS"]["Layers"]
    assert layers == [*below, *result.ready.image_layers]
    assert not image.attrs["Config"]["Labels"]
    told = str(image.attrs["Config"])
    assert "PIP" not in told
    assert "PROXY" not in told.upper()
    assert str(folder) not in run(
        str(result.ready.image), f"print(open('{IMAGE_ENVIRONMENT}/pyvenv.cfg').read())"
    )
    assert str(folder) not in run(
        str(result.ready.image), "import alpha; print(open(alpha.__cached__, 'rb').read())"
    )


@pytest.mark.parametrize("in_registry", [True, False])
async def test_one_added_package_is_one_small_layer(
    folder: Path, registry: str, in_registry: bool
) -> None:
    """Into the registry, and into the engine."""
    made = await builder(folder, ImageSettings(stand_ins.base(), registry if in_registry else None))
    first = await build(made)
    log = list[str]()
    second = await build(made, log, packages=("alpha", "beta"))
    (alpha, rest), (same, beta, other) = (each.ready.image_layers for each in (first, second))
    assert alpha == same
    assert len({alpha, beta, rest, other}) == 4
    (line,) = [line for line in log if "[5/5]" in line]
    assert "2 of 3 layers" in line
    (moved,) = [line for line in log if " moved" in line]
    assert "2 of 3 layers" in moved
    code = "import alpha, beta; print(alpha.WORD, beta.WORD)"
    assert run(str(second.ready.image), code) == "from alpha from beta\n"
    assert run(str(first.ready.image), "import alpha; print(alpha.WORD)") == "from alpha\n"


async def test_two_first_builds_on_one_base_at_once(folder: Path) -> None:
    with servers_in_containers.registry() as host:
        settings = ImageSettings(stand_ins.base(), host)
        made = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            made.append(await builder(folder / name, settings))
        both = await asyncio.gather(build(made[0]), build(made[1], packages=("beta",)))
        for result in both:
            assert str(result.ready.image).startswith(host)


async def test_a_base_whose_name_another_builder_takes_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts, and sweeps, while the base is about to be pushed; or it has pushed it."""
    asked: list[str] = []

    def taken(engine: Any, tag: str, settings: ImageSettings, say: Any) -> str:
        asked.append(tag)
        name = f"{settings.repository}:{tag}"
        if len(asked) == 1:
            engine.images.remove(name, noprune=True)
        digest = push(engine, tag, settings, say)
        engine.images.remove(name, noprune=True)
        return digest

    monkeypatch.setattr(image_delivery, "push", taken)
    with servers_in_containers.registry() as host:
        made = await builder(folder, ImageSettings(stand_ins.base(), host))
        assert str((await build(made)).ready.image).startswith(host)
        assert client().images.list(name=f"{host}/stellwerk/environment") == []
    assert len(asked) == 2


async def test_what_was_compiled_is_used_in_the_image(folder: Path) -> None:
    """Its files have another time there than here."""
    made = await builder(folder, ImageSettings(stand_ins.base()))
    image = (await build(made)).ready.image
    said = run(str(image), "import alpha", stderr=True, environment={"PYTHONVERBOSE": "1"})
    assert re.search(r"code object from '\S+alpha\S+pyc'", said), said
    assert "alpha.py" in run(
        str(image), "import alpha, inspect; print(inspect.getsourcefile(alpha))"
    )


@pytest.mark.parametrize("in_registry", [True, False])
async def test_layers_that_went_meanwhile_are_made_again(
    folder: Path, registry: str, in_registry: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that was cleared, a registry that was changed for another one."""
    settings = ImageSettings(stand_ins.base(), registry if in_registry else None)
    made = await builder(folder, settings)
    first = (await build(made)).ready
    with servers_in_containers.registry() as other:
        if in_registry:
            made._images = ImageMaker(replace(settings, registry=other))
        else:
            client().images.remove(str(first.image), force=True)
            monkeypatch.setattr(ImageMaker, "_nearest", lambda *_: first.image_layers)
        made.cache.discard(first.env_id)
        again = (await build(made)).ready
        assert again.image_layers == first.image_layers
        assert run(str(again.image), "import alpha; print(alpha.WORD)") == "from alpha\n"
        client().images.remove(str(again.image), force=True)


async def test_an_environment_that_was_there_before_images_were_wanted_gets_one(
    folder: Path,
) -> None:
    settings = ImageSettings(stand_ins.base())
    made = await builder(folder, settings)
    made._images = None
    first = await build(made)
    assert first.ready.image is None
    made = await builder(folder, settings)
    log = list[str]()
    second = await build(made, log)
    assert second.ready.lock_digest == first.ready.lock_digest
    assert not [line for line in log if "Resolving" in line]
    assert str(second.ready.image).startswith("sha256:")
    assert run(str(second.ready.image), "import alpha; print(alpha.WORD)") == "from alpha\n"


async def test_base_image_that_is_not_there(folder: Path) -> None:
    found = await failure(folder, ImageSettings("127.0.0.1:9/none/none:1"))
    assert (found.reason, found.code) == ("internal", "env.base_image")


async def test_base_image_without_that_python(folder: Path) -> None:
    """The registry's stand-in would have one; an empty image has none."""
    empty = "stellwerk-test/empty:1"
    with tempfile.NamedTemporaryFile(suffix=".tar") as tar:
        subprocess.run(["tar", "-cf", tar.name, "-T", "/dev/null"], check=True)
        subprocess.run(["docker", "import", tar.name, empty], check=True, capture_output=True)
    found = await failure(folder, ImageSettings(empty))
    client().images.remove(empty, force=True)
    assert (found.reason, found.code) == ("internal", "env.base_python")


async def test_registry_that_is_down(folder: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    found = await failure(folder, ImageSettings(stand_ins.base(), host))
    assert client().images.list(name=f"{host}/stellwerk/environment") == []
    assert (found.reason, found.code, found.retryable) == (
        "index-unreachable", "env.registry_unreachable", True,
    )  # fmt: skip


async def test_registry_that_wants_a_login(folder: Path) -> None:
    users = folder / "users"
    users.mkdir()
    right = servers_in_containers.LOGIN
    with servers_in_containers.registry(users) as host:

        def settings(**login: str) -> ImageSettings:
            return ImageSettings(stand_ins.base(), host, RegistryLogins({host: login}))

        found = await failure(folder, settings(**{**right, "password": "wrong-one"}))
        assert (found.reason, found.code) == ("internal", "env.registry_denied")
        made = await build(await builder(folder, settings(**right)))
        assert str(made.ready.image).startswith(host)


@pytest.mark.usefixtures("engine_refuses")
async def test_engine_that_is_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = stand_ins.base()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/none.sock")
    found = await failure(folder, ImageSettings(base))
    assert (found.reason, found.code) == ("internal", "env.engine_unreachable")


async def test_a_rebuild_reads_everything_again(folder: Path, registry: str) -> None:
    """The same files are the same image."""
    made = await builder(folder, ImageSettings(stand_ins.base(), registry))
    first = await build(made)
    spec, identity = made.identify(from_packages(["alpha"]))
    for path in made.cache.layers.iterdir():
        path.write_text(f'{{"digest": "sha256:{"0" * 64}", "size": 1}}')
    second = await made.build(spec, identity, lambda _: None, rebuild=True)
    assert second.ready.image == first.ready.image
    assert run(str(second.ready.image), "import alpha; print(alpha.WORD)") == "from alpha\n"


async def test_limit(folder: Path) -> None:
    found = await failure(folder, replace(ImageSettings(stand_ins.base()), limit_s=0.05))
    assert (found.reason, found.code) == ("timeout", "env.build_timeout")


async def test_what_a_killed_builder_left_is_swept() -> None:
    settings = ImageSettings(stand_ins.base())
    client().containers.create(settings.base, ["true"], name=f"{NAME}{settings.mark('0' * 40)}")
    base = client().images.get(stand_ins.base())
    base.tag("stellwerk/environment", "base-0")  # it was being pushed
    await ImageMaker(settings).sweep()
    assert client().images.list(name="stellwerk/environment:base-0") == []
    assert client().images.get(stand_ins.base()).id == base.id


async def test_registry_answers_by_digest_only_what_was_pushed(folder: Path, registry: str) -> None:
    result = await build(await builder(folder, ImageSettings(stand_ins.base(), registry)))
    digest = str(result.ready.image).partition("@")[2]
    url = f"http://{registry}/v2/stellwerk/environment/manifests/{digest}"
    accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
    answer = httpx2.get(url, headers=accept)
    assert "sha256:" + hashlib.sha256(answer.content).hexdigest() == digest


async def test_pruned_from_engine_and_registry(folder: Path, registry: str) -> None:
    """A smaller environment below stays whole; one that is asked for again is made again."""
    made = await builder(folder, ImageSettings(stand_ins.base(), registry))
    small = (await build(made)).ready
    large = (await build(made, packages=("alpha", "beta"))).ready
    pruner = Pruner(made.cache, made._images, SystemClock())
    for ready, days in ((small, 40), (large, 20)):
        then = time.time() - days * 86_400
        os.utime(made.cache.path(ready.env_id) / READY, (then, then))
    done = await pruner.prune(Wanted(older_than_s=30 * 86_400, from_registry=True))
    assert [each.env_id for each in done.removed] == [small.env_id]
    mark = ImageSettings("base").mark(small.env_id)
    with pytest.raises(ImageNotFound):
        client().images.get(f"{registry}/stellwerk/environment:{mark}")
    with pytest.raises(NotFound):
        client().api.pull(str(small.image))
    assert run(str(large.image), "import alpha, beta; print(beta.WORD)") == "from beta\n"
    again = (await build(made)).ready
    assert run(str(again.image), "import alpha; print(alpha.WORD)") == "from alpha\n"
