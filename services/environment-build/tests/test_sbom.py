"""Bills of materials: valid CycloneDX 1.6 that names what is installed, and who needs whom."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conda_channel import MINOR, VERSION, CondaChannel
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from stellwerk.api import BuildView, EnvironmentView
from stellwerk.environment_spec import from_dict, from_packages
from stellwerk.errors import NotFoundError
from stellwerk_environment_build.builder import Builder
from stellwerk_environment_build.cache import READY
from stellwerk_environment_build.conda_channels import ChannelSettings
from stellwerk_kit.bus import Bus

MakeWheel = Callable[..., Path]
MakeBuilder = Callable[..., Builder]


async def sbom_of(builder: Builder, definition: Any) -> dict[str, Any]:
    spec, identity = await builder.recognise(definition)
    ready = (await builder.build(spec, identity, lambda _line: None)).ready
    assert ready.sbom_digest is not None
    text = builder.cache.kept_text(ready.sbom_digest)
    assert text is not None
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document: dict[str, Any] = json.loads(text)
    assert document["specVersion"] == "1.6"
    assert document["metadata"]["component"]["name"] == identity
    assert {"name": "stellwerk:lock", "value": ready.lock_digest} in document["metadata"][
        "properties"
    ]
    return document


def by_ref(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["bom-ref"]: each for each in document["components"]}


async def test_packages_of_the_index_with_licence_hash_and_needs(
    make_wheel: MakeWheel, make_builder: MakeBuilder
) -> None:
    make_wheel(
        "alpha",
        "1.0",
        requires=("beta>=1 ; sys_platform ~= 'linux'", "gone ; python_version < '3'"),
    )
    make_wheel("beta", "1.5")
    document = await sbom_of(make_builder(), from_packages(["alpha"]))
    found = by_ref(document)
    assert set(found) == {
        "pkg:pypi/alpha@1.0",
        "pkg:pypi/beta@1.5",
        f"pkg:generic/python@{VERSION}",
    }
    assert found["pkg:pypi/alpha@1.0"]["purl"] == "pkg:pypi/alpha@1.0"
    assert found["pkg:pypi/alpha@1.0"]["hashes"][0]["alg"] == "SHA-256"
    needs = {each["ref"]: each.get("dependsOn", []) for each in document["dependencies"]}
    assert needs["pkg:pypi/alpha@1.0"] == ["pkg:pypi/beta@1.5"]
    assert needs["pkg:pypi/beta@1.5"] == []


async def test_conda_packages_with_channel_licence_and_hash(
    make_wheel: MakeWheel, make_builder: MakeBuilder, tmp_path: Path
) -> None:
    channel = CondaChannel(tmp_path / "channel")
    channel.add_python()
    channel.add_module("tool", "2.0")
    channel.add_module("two_forms", "1.0")
    channel.add("two-forms", "1.0", {}, depends=["two_forms"])
    make_wheel("alpha", "1.0", requires=("tool", "two-forms"))
    builder = make_builder(channels=ChannelSettings("channels", {"ours": channel.address}))
    definition = from_dict(
        {
            "python": MINOR,
            "channels": ["ours"],
            "conda_packages": ["tool", "two-forms"],
            "pip_packages": ["alpha"],
        }
    )
    document = await sbom_of(builder, definition)
    found = by_ref(document)
    tool = "pkg:conda/tool@2.0?build=0&channel=ours&subdir=noarch"
    assert found[tool]["licenses"] == [{"license": {"id": "MIT"}}]
    assert len(found[tool]["hashes"][0]["content"]) == 64
    assert {each["name"] for each in found.values()} == {
        "alpha", "python", "tool", "two-forms", "two_forms",
    }  # fmt: skip
    needs = {each["ref"]: each.get("dependsOn", []) for each in document["dependencies"]}
    both = [
        f"pkg:conda/{each}@1.0?build=0&channel=ours&subdir=noarch"
        for each in ("two-forms", "two_forms")
    ]
    assert needs["pkg:pypi/alpha@1.0"] == [tool, *both]


async def test_environment_that_is_older_than_bills_of_materials_gets_one(
    make_wheel: MakeWheel, make_builder: MakeBuilder
) -> None:
    make_wheel("alpha", "1.0")
    builder = make_builder()
    spec, identity = builder.identify(from_packages(["alpha"]))
    first = await builder.build(spec, identity, lambda _line: None)
    ready = builder.cache.path(identity) / READY
    content = json.loads(ready.read_text())
    del content["sbom_digest"]
    ready.write_text(json.dumps(content))
    assert builder.lookup(spec, identity) is None
    again = await builder.build(spec, identity, lambda _line: None)
    assert again.ready == first.ready


async def test_it_can_be_read_by_its_digest(
    bus: Bus, seen: Any, start: Callable[..., Any], make_wheel: MakeWheel
) -> None:
    make_wheel("alpha")
    await start()
    await seen.prepare("run-1", from_packages(["alpha"]))
    image = (await seen.ready("run-1")).image
    view = await bus.call("environment-build", "build-get", {"env_id": image.env_id}, BuildView)
    assert view.sbom_digest == image.sbom_digest
    asked = {"digest": image.sbom_digest, "offset": 0}
    reply = await bus.call_raw("environment-build", "record-read", asked, 5.0)
    assert json.loads(reply.body)["bomFormat"] == "CycloneDX"
    assert (reply.headers["Sw-Next-Offset"], reply.headers["Sw-Closed"]) == (
        str(len(reply.body)), "1",
    )  # fmt: skip
    rest = await bus.call_raw("environment-build", "record-read", asked | {"offset": 100}, 5.0)
    assert rest.body == reply.body[100:]
    with pytest.raises(NotFoundError):
        await bus.call_raw("environment-build", "record-read", {"digest": "0" * 64}, 5.0)
    body = {"name": "plain", "requirements": "alpha"}
    registered = await bus.call("environment-build", "environment-register", body, EnvironmentView)
    assert registered.env_id == image.env_id
