"""The environments that come with the platform: whole, pinned, and the same on every Python."""

import pytest
from packaging.requirements import Requirement

from stellwerk.curated import curated_environment, curated_environments
from stellwerk.environment_spec import normalise


def test_five_come_with_the_platform() -> None:
    assert list(curated_environments()) == [
        "keras-jax", "keras-tf", "keras-torch", "minimal", "tensorflow-cpu",
    ]  # fmt: skip
    assert curated_environment("Keras-JAX") is curated_environments()["keras-jax"]
    assert curated_environment("keras") is None


@pytest.mark.parametrize("name", list(curated_environments()))
def test_everything_is_pinned_and_nothing_is_exchanged(name: str) -> None:
    definition = curated_environments()[name].definition
    pins = [Requirement(each) for each in definition.constraints]
    for each in (*map(Requirement, definition.pip_packages), *pins):
        assert [one.operator for one in each.specifier] == ["=="], each
    locked = {(pin.name, str(pin.specifier)) for pin in pins}
    for each in map(Requirement, definition.pip_packages):
        assert (each.name, str(each.specifier)) in locked, "run make curated"
    for python in ("3.11.14", "3.12.12", "3.13.9"):
        spec = normalise(definition, available_pythons=["3.9.1", python])
        assert (spec.python, spec.warnings) == (python, ())
        assert len(spec.constraints) == len(pins)


@pytest.mark.parametrize("backend", ["jax", "tf", "torch"])
def test_keras_gets_its_backend(backend: str) -> None:
    variables = curated_environments()[f"keras-{backend}"].definition.environment_variables
    assert variables == {"KERAS_BACKEND": {"tf": "tensorflow"}.get(backend, backend)}
