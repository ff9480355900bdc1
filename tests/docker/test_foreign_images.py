"""Environments on an image, a Dockerfile or a folder of the definition: really built and run.

Every refusal is exact, and whatever happens leaves no container, image or volume behind.
"""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import images as stand_ins
import pytest
import servers_in_containers
from docker.errors import ImageNotFound, NotFound
from engine import client
from environments import build, builder, failing, run, wheel
from foreign import FAILURES, Folder, dockerfile, fails, kill_builder, on, settings

from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk_environment_build import image_facts
from stellwerk_environment_build.image_discard import discard
from stellwerk_environment_build.image_engine import LABEL, NAME, ImageSettings
from stellwerk_environment_build.images import ImageMaker
from stellwerk_kit.registry_logins import RegistryLogins
from stellwerk_kit.testing import wait_until
from stellwerk_kit.testing.servers import free_port

pytestmark = pytest.mark.usefixtures("no_build_left")


async def test_packages_on_an_image_of_another_python_at_another_place(
    folder: Path, registry: str
) -> None:
    base = stand_ins.base()
    made, log = await builder(folder, settings(registry=registry)), list[str]()
    wanted = EnvironmentDefinition(image=base, pip_packages=("alpha",))
    ready = (await build(made, wanted, log)).ready
    assert str(ready.image).startswith(f"{registry}/stellwerk/environment@sha256:")
    assert (ready.image_python, ready.packages) == ("/opt/environment/bin/python", ("alpha==1.0",))
    assert str(ready.python).startswith("3.11.")
    assert '"pkg:pypi/alpha@1.0"' in str(made.cache.kept_text(str(ready.sbom_digest)))
    assert any(line.startswith(f"[1/4] Getting image {base}") for line in log), log
    code = "import alpha, sys; print(alpha.WORD, sys.prefix, alpha.__cached__)"
    word, prefix, cached = run(str(ready.image), code, user="123", read_only=True).rsplit(" ", 2)
    assert (word, prefix) == ("from alpha", "/opt/environment")
    assert (
        run(str(ready.image), f"import os; print(os.path.exists({cached.strip()!r}))") == "True\n"
    )
    assert not (made.cache.path(ready.env_id) / "lib").exists(), "its files are in the image alone"
    again = await build(made, wanted)
    assert (again.cached, again.ready.image) == (True, ready.image)


@pytest.mark.parametrize("fields", [{}, {"image": stand_ins.base}])
async def test_a_package_that_would_take_a_file_of_another_one_away(
    folder: Path, fields: dict[str, Any]
) -> None:
    """On the platform's base image, and on one of the definition."""
    made = await builder(folder, settings())
    wheel(folder / "wheels", "gamma", ".wh.alpha.py")
    fields = {name: value() for name, value in fields.items()}
    found = await failing(made, EnvironmentDefinition(pip_packages=("alpha", "gamma"), **fields))
    assert (found.reason, found.code) == ("your-spec", "env.file_name"), found.message
    assert "site-packages/.wh.alpha.py'" in found.message


async def test_an_image_is_used_as_it_is(folder: Path, registry: str) -> None:
    base = client().images.get(stand_ins.base())
    made = await builder(folder, settings(registry=registry))
    wanted = EnvironmentDefinition(image=stand_ins.base(), user_managed=True)
    ready = (await build(made, wanted)).ready
    client().images.pull(str(ready.image))
    assert client().images.get(str(ready.image)).id == base.id
    assert ready.image_python == "/usr/bin/python3"
    by_digest = EnvironmentDefinition(image=str(ready.image), user_managed=True, strict=True)
    assert (await build(made, by_digest)).ready.image == ready.image, "named so, it is used so"


async def test_a_dockerfile_is_built_and_its_log_is_told(folder: Path) -> None:
    made, log = await builder(folder, settings()), list[str]()
    steps = ("ENV GREETING=hello PATH=/opt/tool:$PATH", "RUN echo built > /marker && echo told")
    ready = (await build(made, dockerfile(*steps), log)).ready
    assert run(str(ready.image), "print(open('/marker').read())") == "built\n\n"
    assert "      told" in log
    variables = dict(ready.image_variables)
    assert variables["GREETING"] == "hello"
    assert variables["PATH"].startswith("/opt/tool:")
    labels = client().images.get(str(ready.image)).labels
    assert labels == {LABEL: settings().mark(ready.env_id)}


async def test_a_dockerfile_copies_from_its_earlier_stages(folder: Path) -> None:
    """Named as a stage, by its number, and an image by its digest that is there already."""
    base = client().images.get(stand_ins.base())
    lines = [
        f"FROM {stand_ins.base()} AS Tools",
        "RUN echo made > /tool && echo two > /two",
        f"FROM {stand_ins.base()}",
        "COPY --from=tools /tool /copied",
        "COPY --from=0 /two /two",
        f"COPY --from={base.id} /etc/os-release /third",
    ]
    wanted = EnvironmentDefinition(dockerfile="\n".join(lines), user_managed=True)
    ready = (await build(await builder(folder, settings()), wanted)).ready
    code = "print(*[bool(open(p).read()) for p in ('/copied', '/two', '/third')])"
    assert run(str(ready.image), code) == "True True True\n"


async def test_another_builder_on_the_engine_keeps_what_is_its_own(folder: Path) -> None:
    """Its image of the same definition, the stages of its build, and what it is about to try."""
    both = [settings(builder=name) for name in ("ours", "theirs")]
    made, other = [await builder(_sub(folder, each.builder), each) for each in both]
    wanted = dockerfile("RUN true", "ENV WORD=kept")
    theirs = (await build(other, wanted)).ready
    mark = both[1].mark(theirs.env_id)
    text = on(stand_ins.base(), f'LABEL {LABEL}="{mark}"', "ENV STAGE=1")
    stage, _ = client().images.build(fileobj=io.BytesIO(text.encode()), forcerm=True)
    step = client().containers.create(stage.id, ["true"], name=f"{NAME}{mark}")

    ready = (await build(made, wanted)).ready
    await ImageMaker(both[0]).sweep()
    await asyncio.to_thread(discard, ready, both[0], from_registry=False)
    assert client().images.get(stage.id)
    assert client().containers.get(step.id)
    assert run(str(theirs.image), "import os; print(os.environ['WORD'])") == "kept\n"

    await ImageMaker(both[1]).sweep()
    with pytest.raises(NotFound):
        client().containers.get(step.id)
    with pytest.raises(ImageNotFound):
        client().images.get(stage.id)
    assert client().images.get(str(theirs.image))


def _sub(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


async def test_packages_on_a_dockerfile_and_a_rebuild(folder: Path) -> None:
    made = await builder(folder, settings())
    wanted = dockerfile("RUN date +%N > /now", user_managed=False, pip_packages=("alpha",))
    first = (await build(made, wanted)).ready
    code = "import alpha; print(alpha.WORD, open('/now').read())"
    said = run(str(first.image), code)
    assert said.startswith("from alpha ")
    spec, identity = made.identify(wanted)
    second = (await made.build(spec, identity, lambda _: None, rebuild=True)).ready
    assert run(str(second.image), code) != said
    with pytest.raises(ImageNotFound):
        client().images.get(str(first.image))


async def test_a_folder_with_its_dockerfile_below(folder: Path) -> None:
    context = Folder({
        "docker/Dockerfile": on(stand_ins.base(), "COPY . /copied"),
        "a/b.txt": "text", "secret.txt": "x", ".dockerignore": "secret.txt\n",
    })  # fmt: skip
    made = await builder(folder, settings(), objects=context)
    snapshot = context.manifest.digest()
    fields = {"build_context": {"snapshot": snapshot, "dockerfile": "docker/Dockerfile"}}
    ready = (await build(made, EnvironmentDefinition(**fields, user_managed=True))).ready
    code = "import os; print(open('/copied/a/b.txt').read(), sorted(os.listdir('/copied')))"
    assert run(str(ready.image), code) == "text ['.dockerignore', 'a', 'docker']\n"
    for changed, code in (
        ({"snapshot": "0" * 64}, "env.build_context"),
        ({"snapshot": snapshot, "dockerfile": "Dockerfile"}, "env.dockerfile"),
        ({"snapshot": snapshot, "dockerfile": "../../etc/passwd"}, "env.dockerfile"),
        ({"snapshot": snapshot, "dockerfile": "a/b.txt"}, "env.dockerfile"),
    ):
        wanted = EnvironmentDefinition(build_context=changed, user_managed=True)
        found = await failing(made, wanted)
        assert (found.reason, found.code) == ("your-spec", code)


@pytest.mark.parametrize(
    ("steps", "reason", "code", "words"),
    [
        *FAILURES,
        (("RUN echo why && exit 3",), "your-spec", "env.dockerfile_failed", "non-zero code: 3"),
        (
            ("RUN printf '#!/bin/sh\\nexit 3\\n' > /p && chmod +x /p && ln -sf /p /usr/bin/python3",),
            "your-spec", "env.image_python", "ended with status 3",
        ),
        (("RUN chmod 700 /usr/bin/python3.11",), "your-spec", "env.image_python", "by every user"),
    ],
)  # fmt: skip
async def test_a_dockerfile_that_does_not_build(
    folder: Path, steps: tuple[str, ...], reason: str, code: str, words: str
) -> None:
    await fails(folder, "VOLUME /data", steps, reason, code, words)


async def test_a_base_whose_steps_come_before_the_label(folder: Path) -> None:
    name = "stellwerk-test/onbuild:1"
    text = on(stand_ins.base(), "ONBUILD RUN sleep 600")
    client().images.build(fileobj=io.BytesIO(text.encode()), tag=name, forcerm=True)
    try:
        wanted = EnvironmentDefinition(dockerfile=on(name), user_managed=True)
        found = await failing(await builder(folder, settings()), wanted)
    finally:
        client().images.remove(name)
    assert (found.reason, found.code) == ("your-spec", "env.dockerfile")
    assert "has ONBUILD steps" in found.message


async def test_a_python_that_never_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_facts, "PROBE_S", 1)
    step = (
        "RUN printf '#!/bin/sh\\nsleep 600\\n' > /p && chmod 755 /p && ln -sf /p /usr/bin/python3"
    )
    found = await failing(await builder(folder, settings()), dockerfile(step))
    assert (found.reason, found.code) == ("your-spec", "env.image_python"), found.message
    assert "does not answer within 1 s" in found.message


async def test_the_network_where_the_operator_allows_it(folder: Path) -> None:
    step = 'RUN python3 -c "import socket; print(socket.if_nameindex())"'
    log: list[str] = []
    await build(await builder(folder, settings()), dockerfile(step), log)
    assert "      [(1, 'lo')]" in log
    log.clear()
    steps = (step, "RUN env | grep -i proxy")
    proxies = {"HTTP_PROXY": "http://user:hidden@proxy:1"}
    made = await builder(folder, settings(network="bridge", proxies=proxies))
    ready = (await build(made, dockerfile(*steps), log)).ready
    assert any("'eth0'" in line for line in log), log
    assert "      HTTP_PROXY=http://proxy:1" in log, "without its user and password"
    image = client().images.get(str(ready.image))
    assert "hidden" not in json.dumps([image.attrs, image.history()])


async def test_a_step_that_fills_the_disk_is_ended_before_it_is_full(folder: Path) -> None:
    wanted = dockerfile("RUN dd if=/dev/zero of=/big bs=1M count=4000; sleep 30")
    found = await failing(await builder(folder, settings(max_bytes=500_000_000)), wanted)
    assert (found.reason, found.code) == ("your-spec", "env.image_too_large")
    assert "more than 0.5 GB" in found.message


async def test_memory_of_a_step(folder: Path) -> None:
    wanted = dockerfile("RUN python3 -c 'bytearray(300 << 20)'")
    found = await failing(await builder(folder, settings(memory_bytes=128 << 20)), wanted)
    assert (found.reason, found.code) == ("killed", "env.build_killed")


async def test_time_of_a_build(folder: Path) -> None:
    found = await failing(
        await builder(folder, settings(limit_s=3.0)), dockerfile("RUN true", "RUN sleep 600")
    )
    assert (found.reason, found.code) == ("timeout", "env.build_timeout")


async def test_what_an_image_may_not_set(folder: Path) -> None:
    steps = ("ENV LD_PRELOAD=/evil.so PYTHONHOME=/x STELLWERK_TOKEN=t HOME=/root KEPT=1",)
    ready = (await build(await builder(folder, settings()), dockerfile(*steps))).ready
    assert set(dict(ready.image_variables)) == {"KEPT", "PATH"}
    assert [text.split()[3].rstrip(",") for text in ready.warnings] == [
        "LD_PRELOAD", "PYTHONHOME", "STELLWERK_TOKEN",
    ]  # fmt: skip


async def test_images_that_cannot_be_had(folder: Path, registry: str) -> None:
    made = await builder(folder, settings())
    for image, reason, code in (
        (f"{registry}/nobody/nothing:1", "your-spec", "env.image_not_found"),
        (f"{registry}/nobody/nothing@sha256:{'0' * 64}", "your-spec", "env.image_not_found"),
        (f"127.0.0.1:{free_port()}/a/b:1", "index-unreachable", "env.registry_unreachable"),
    ):
        found = await failing(made, EnvironmentDefinition(image=image, user_managed=True))
        assert (found.reason, found.code) == (reason, code), found.message
        text = on(image)
        found = await failing(made, EnvironmentDefinition(dockerfile=text, user_managed=True))
        assert (found.reason, found.code) == (reason, code), found.message


async def test_registry_logins(folder: Path) -> None:
    wanted = EnvironmentDefinition(image=stand_ins.base(), user_managed=True)
    users = folder / "users"
    users.mkdir()
    with servers_in_containers.registry(users) as host:

        def login(password: str) -> ImageSettings:
            known = {host: {"username": "u", "password": password}}
            return settings(registry=host, logins=RegistryLogins(known))

        for given in (settings(registry=host), login("wrong-one")):
            found = await failing(await builder(folder, given), wanted)
            assert (found.reason, found.code) == ("internal", "env.registry_denied")
            assert "STELLWERK_REGISTRY_CREDENTIALS" in found.message
            assert "wrong-one" not in found.message
        log: list[str] = []
        ready = (await build(await builder(folder, login("right-one")), wanted, log)).ready
        assert str(ready.image).startswith(host)
        assert "right-one" not in "\n".join(log)
        client().images.remove(str(ready.image))
        private = EnvironmentDefinition(image=str(ready.image), user_managed=True)
        name = f"{host}/stellwerk/environment:{settings().mark(ready.env_id)}"
        client().images.remove(name, force=True)
        found = await failing(await builder(folder, settings()), private)
        assert found.code == "env.registry_denied"
        assert (await build(await builder(folder, login("right-one")), private)).ready.image
        client().images.remove(str(ready.image))


async def test_many_who_wait_are_one_build(folder: Path) -> None:
    made = await builder(folder, settings())
    results = await asyncio.gather(*(build(made, dockerfile("RUN sleep 1")) for _ in range(5)))
    assert len({each.ready.image for each in results}) == 1
    assert sorted(each.cached for each in results) == [False, True, True, True, True]


async def test_a_killed_builder_leaves_nothing_for_long(folder: Path) -> None:
    filters = {"label": LABEL}

    def at_the_last_step() -> bool:
        found = client().api.containers(filters=filters)
        return any("sleep 600" in each["Command"] for each in found)

    steps = ("RUN touch /x", "VOLUME /data", "RUN sleep 600")
    await kill_builder(folder, *steps, when=at_the_last_step)

    async def swept() -> bool:
        """The engine itself removes a step whose client is gone; that may take it a moment."""
        await ImageMaker(settings()).sweep()
        left = client().api.containers(all=True, filters=filters)
        return left == client().api.images(filters={**filters, "dangling": True}) == []

    await wait_until(swept, 20)
    assert (
        client().containers.list(all=True, filters={"name": f"^/{NAME}"}, ignore_removed=True) == []
    )
    ready = (await build(await builder(folder, settings()), dockerfile("RUN true"))).ready
    assert ready.image
