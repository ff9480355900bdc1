"""What an environment stands on: checked, and part of its identity. Pure."""

from typing import Any

import pytest

from stellwerk.environment_container import by_digest
from stellwerk.environment_spec import (
    EnvironmentDefinition,
    InvalidEnvironment,
    NormalisedSpec,
    env_id,
    normalise,
    settled,
)

DIGEST = "sha256:" + "a" * 64


def spec(**fields: Any) -> NormalisedSpec:
    return normalise(EnvironmentDefinition(**fields), available_pythons=("3.11.7",))


def identity(**fields: Any) -> str:
    return env_id(spec(**fields), platform="p", builder_version="1")


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"image": "a", "dockerfile": "FROM a"}, "env.container", "dockerfile"),
        ({"image": "a b"}, "env.image_name", "image"),
        ({"image": "https://host/a"}, "env.image_name", "image"),
        ({"image": "-v"}, "env.image_name", "image"),
        ({"image": "a@sha256:12"}, "env.image_name", "image"),
        ({"image": "python:3.11", "strict": True}, "env.image_digest", "image"),
        ({"dockerfile": "RUN true\n"}, "env.dockerfile", "dockerfile"),
        ({"dockerfile": ""}, "env.dockerfile", "dockerfile"),
        ({"dockerfile": "# FROM a\n"}, "env.dockerfile", "dockerfile"),
    ],
)
def test_refused(fields: dict[str, Any], code: str, field: str) -> None:
    with pytest.raises(InvalidEnvironment) as caught:
        spec(**fields)
    assert (caught.value.code, caught.value.field) == (code, field)


@pytest.mark.parametrize(
    "image",
    [
        "a",
        "a:1",
        "host:5000/a/b_c-d:1.2",
        f"host/a@{DIGEST}",
        f"a:1@{DIGEST}",
        DIGEST,
        "127.0.0.1:9/x",
    ],
)
def test_names_of_images(image: str) -> None:
    found = spec(image=image)
    assert found.container is not None
    assert found.container.image == image
    assert by_digest(image) == ("sha256:" in image)


def test_what_it_stands_on_is_part_of_the_identity() -> None:
    different = [
        {},
        {"image": "a"},
        {"image": "b"},
        {"dockerfile": "FROM a\n"},
        {"build_context": {"snapshot": "0" * 64}},
        {"build_context": {"snapshot": "0" * 64, "dockerfile": "x/Dockerfile"}},
        {"image": "a", "user_managed": True},
        {"image": "a", "pip_packages": ("six",)},
    ]
    assert len({identity(**fields) for fields in different}) == len(different)
    assert identity(image="a", pip_packages=("Six", "idna")) == identity(
        image="a", pip_packages=("idna", "six")
    )


def test_requirements_are_settled_for_the_images_python() -> None:
    wanted = spec(image="a", python="3.8", pip_packages=("tensorflow==2.3",))
    assert wanted.requirements == ("tensorflow==2.3",)
    found = settled(wanted, "3.11.2")
    assert found.python == "3.11.2"
    assert found.requirements != wanted.requirements
    assert any(text.startswith("python 3.8 -> 3.11.2") for text in found.warnings)
    with pytest.raises(InvalidEnvironment) as caught:
        settled(spec(image=f"a@{DIGEST}", python="3.8", strict=True), "3.11.2")
    assert caught.value.code == "env.strict"
