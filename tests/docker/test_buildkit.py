"""Dockerfiles that need BuildKit, built by the engine's own: what they may, and every wall."""

import asyncio
import io
import json
from pathlib import Path

import images as stand_ins
import psutil
import pytest
from docker.errors import ImageNotFound
from engine import client
from environments import build, builder, failing, run
from foreign import FAILURES, Folder, dockerfile, fails, kill_builder, on, settings

from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.ids import new_id
from stellwerk_environment_build import engine_watch
from stellwerk_environment_build.image_engine import LABEL
from stellwerk_environment_build.images import ImageMaker
from stellwerk_kit.testing import wait_until

pytestmark = pytest.mark.usefixtures("no_build_left")
NOW = new_id()
"""BuildKit builds no step again that it has built before; what has this in it is new."""
MOUNT = f"RUN --mount=type=tmpfs,target=/scratch : {NOW}"
"""A step that only BuildKit knows."""


async def test_mounts_modes_and_a_syntax_line(folder: Path) -> None:
    """The line would have the engine pull that image, which it cannot here."""
    base = stand_ins.base()
    lines = [
        "# syntax=docker/dockerfile:1.99",
        f"FROM {base} AS tools",
        MOUNT,
        "RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t echo told > /tool; cat /tool",
        f"FROM {base}",
        "COPY --chmod=640 --from=tools /tool /copied",
        "RUN --mount=from=tools,source=/tool,target=/m cat /m > /kept",
        "ENV GREETING=hello",
    ]
    made, log = await builder(folder, settings()), list[str]()
    wanted = EnvironmentDefinition(dockerfile="\n".join(lines), user_managed=True)
    ready = (await build(made, wanted, log)).ready
    code = "import os; print(open('/kept').read(), oct(os.stat('/copied').st_mode))"
    assert run(str(ready.image), code) == "told\n 0o100640\n"
    assert dict(ready.image_variables)["GREETING"] == "hello"
    steps = [line for line in log if line.startswith("      ")]
    assert "syntax docker/dockerfile:1.99: the engine's own BuildKit reads the file" in steps[0]
    assert steps.index("      told") == 1 + next(
        at for at, line in enumerate(steps) if "[tools 3/3] RUN --mount" in line
    )
    labels = client().images.get(str(ready.image)).labels
    assert labels == {LABEL: settings().mark(ready.env_id)}


async def test_here_documents_and_links(folder: Path) -> None:
    """Engines before Docker 23 do not know them, which they are told instead of built."""
    steps = (
        "RUN <<EOF\nset -e\nprintf one > /one\nEOF",
        "COPY --link <<two.txt <<'three.txt' /copied/\n$PATH\ntwo.txt\n$PATH\nthree.txt",
        "RUN python3 <<EOF\nopen('/python', 'w').write('from python')\nEOF",
    )
    made = await builder(folder, settings())
    if tuple(map(int, client().version()["ApiVersion"].split("."))) < (1, 42):
        found = await failing(made, dockerfile(*steps))
        assert (found.reason, found.code) == ("your-spec", "env.dockerfile")
        assert "line 2 has a here-document. Only BuildKit builds that" in found.message
        assert "Docker 23 or newer does" in found.message
        return
    ready = (await build(made, dockerfile(*steps))).ready
    code = (
        "print(*[open(p).read().strip() for p in ('/one', '/python', '/copied/three.txt')], "
        "'/bin' in open('/copied/two.txt').read())"
    )
    assert run(str(ready.image), code) == "one from python $PATH True\n"


async def test_a_folder_with_its_dockerfile_and_its_ignored_files_below(folder: Path) -> None:
    long = f"{'long/' * 30}name.txt"
    context = Folder({
        "docker/Dockerfile": on(stand_ins.base(), MOUNT, "COPY --chmod=644 . /copied"),
        "docker/Dockerfile.dockerignore": "# of this one\nsecret.txt\n",
        ".dockerignore": "a\n", "a/ä.txt": "text", "secret.txt": "x", long: "far",
    })  # fmt: skip
    fields = {
        "build_context": {"snapshot": context.manifest.digest(), "dockerfile": "docker/Dockerfile"}
    }
    made = await builder(folder, settings(), objects=context)
    ready = (await build(made, EnvironmentDefinition(**fields, user_managed=True))).ready
    code = (
        "import os; print(sorted(os.listdir('/copied')), open('/copied/a/ä.txt').read(), "
        f"open('/copied/{long}').read())"
    )
    assert run(str(ready.image), code) == ("['.dockerignore', 'a', 'docker', 'long'] text far\n")


@pytest.mark.parametrize(
    ("steps", "reason", "code", "words"),
    [
        *FAILURES,
        (("RUN echo why && exit 3",), "your-spec", "env.dockerfile_failed", "exit code: 3"),
        (
            ("RUN --mount=from=busybox:1,target=/b true",),
            "your-spec", "env.dockerfile_network", "line 3 has RUN --mount=from=busybox:1",
        ),
    ],
)  # fmt: skip
async def test_a_dockerfile_that_does_not_build(
    folder: Path, steps: tuple[str, ...], reason: str, code: str, words: str
) -> None:
    await fails(folder, MOUNT, steps, reason, code, words)


async def test_the_network_where_the_operator_allows_it(folder: Path, registry: str) -> None:
    step = 'RUN python3 -c "import socket; print(socket.if_nameindex())"'
    log: list[str] = []
    await build(await builder(folder, settings()), dockerfile(MOUNT, step), log)
    assert "      [(1, 'lo')]" in log
    log.clear()
    image = f"{registry}/tools:1"
    text = on(stand_ins.base(), "RUN echo pulled > /tool")
    built, _ = client().images.build(fileobj=io.BytesIO(text.encode()), tag=image, forcerm=True)
    client().images.push(image)
    client().images.remove(image)
    steps = (step, "RUN env | grep -i proxy", f"COPY --from={image} /tool /tool", "RUN cat /tool")
    proxies = {"HTTP_PROXY": "http://user:hidden@proxy:1"}
    made = await builder(folder, settings(network="bridge", proxies=proxies))
    ready = (await build(made, dockerfile(MOUNT, *steps), log)).ready
    client().images.remove(image)
    assert any("'eth0'" in line for line in log), log
    assert "      HTTP_PROXY=http://proxy:1" in log, "without its user and password"
    assert "      pulled" in log, f"from {built.id}"
    image = client().images.get(str(ready.image))
    assert "hidden" not in json.dumps([image.attrs, image.history()])
    assert "proxy" not in json.dumps(image.attrs)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"buildkit": False}, "STELLWERK_BUILD_BUILDKIT"),
        ({"network": "a-network"}, "it has no network 'a-network'"),
    ],
)
async def test_where_buildkit_may_or_can_not_be_used(
    folder: Path, changes: dict[str, object], why: str
) -> None:
    made = await builder(folder, settings(**changes))
    found = await failing(made, dockerfile(MOUNT))
    assert (found.reason, found.code) == ("your-spec", "env.dockerfile")
    assert "line 2 has RUN --mount. Only BuildKit builds that" in found.message
    assert why in found.message


async def test_a_syntax_line_alone_is_no_reason_to_refuse(folder: Path) -> None:
    log: list[str] = []
    text = "# syntax=docker/dockerfile:1\n" + on(stand_ins.base(), "RUN echo told")
    wanted = EnvironmentDefinition(dockerfile=text, user_managed=True)
    await build(await builder(folder, settings(buildkit=False)), wanted, log)
    assert any("the classic builder reads the file" in line for line in log), log
    assert "      told" in log


async def test_caches_of_steps_are_their_environments_own(folder: Path) -> None:
    """One that others could write into would carry their files into images of whoever mounts it."""
    made = await builder(folder, settings())
    step = "RUN --mount=type=cache,id=shared,target=/c touch /c/{} && ls /c > /found"
    for names in (("one", "two"), ("three",)):
        steps = (step.format(name) for name in names)
        ready = (await build(made, dockerfile(MOUNT, *steps))).ready
        code = "print(sorted(open('/found').read().split()))"
        assert run(str(ready.image), code) == f"{sorted(names)}\n"


async def test_a_build_ends_before_the_disk_is_full(folder: Path) -> None:
    wanted = dockerfile(MOUNT, "RUN dd if=/dev/zero of=/big bs=1M count=4000; sleep 6071")
    found = await failing(await builder(folder, settings(max_bytes=500_000_000)), wanted)
    assert (found.reason, found.code) == ("disk-full", "env.disk_full"), found.message
    assert "more than 0.5 GB" in found.message
    await wait_until(lambda: not _sleeping("6071"), 20)


EATS = "import time; kept = [b'1' * (16 << 20) for _ in range(256)]; time.sleep(600)"
"""Four gigabytes, as fast as it can."""


async def test_a_step_that_takes_memory_ends_before_the_machine_has_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other process is the one that the kernel ends; the bound is a gigabyte away here."""
    memory = psutil.virtual_memory()
    monkeypatch.setattr(engine_watch, "MEMORY_KEPT", (memory.available - (1 << 30)) / memory.total)
    command = ["python3", "-c", "import time; kept = b'1' * (64 << 20); time.sleep(600)"]
    neighbour = client().containers.run(stand_ins.base(), command, detach=True, mem_limit=1 << 30)
    try:
        wanted = dockerfile(MOUNT, f'RUN python3 -c "{EATS}"')
        found = await failing(await builder(folder, settings()), wanted)
        neighbour.reload()
        assert neighbour.status == "running"
    finally:
        neighbour.remove(force=True)
    assert (found.reason, found.code) == ("killed", "env.build_killed"), found.message
    assert "hardly any memory left while BuildKit built" in found.message
    await wait_until(lambda: not _runs("python3", "-c", EATS), 20)


async def test_a_rebuild_begins_anew(folder: Path) -> None:
    made = await builder(folder, settings())
    wanted = dockerfile(MOUNT, "RUN date +%N > /now")
    first = (await build(made, wanted)).ready
    spec, identity = made.identify(wanted)
    second = (await made.build(spec, identity, lambda _: None, rebuild=True)).ready
    code = "print(open('/now').read())"
    said = run(str(second.image), code)
    assert said != "\n"
    assert first.image != second.image
    with pytest.raises(ImageNotFound):
        client().images.get(str(first.image))


async def test_time_of_a_build(folder: Path) -> None:
    wanted = dockerfile(MOUNT, "RUN sleep 6073")
    building = failing(await builder(folder, settings(limit_s=6.0)), wanted)
    _, found = await asyncio.gather(wait_until(lambda: _sleeping("6073"), 30), building)
    assert (found.reason, found.code) == ("timeout", "env.build_timeout")
    await wait_until(lambda: not _sleeping("6073"), 20)


async def test_a_killed_builder_leaves_nothing_for_long(folder: Path) -> None:
    """The engine ends a build whose client is gone; what watched it is swept away."""
    await kill_builder(folder, MOUNT, "RUN sleep 6074", when=lambda: _sleeping("6074"))
    await wait_until(lambda: not _sleeping("6074"), 20)
    await ImageMaker(settings()).sweep()


def _sleeping(seconds: str) -> bool:
    """Whether a step sleeps so long."""
    return _runs("sleep", seconds)


def _runs(*command: str) -> bool:
    """Whether such a process is there; the engine is on this machine."""
    found = psutil.process_iter(["cmdline"])
    return any(each.info["cmdline"] == [*command] for each in found)
