import pytest

from stellwerk.api import ModelPatch, ModelRequest
from stellwerk.errors import ConflictError, NotFoundError, UserError
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_model_registry.domain import (
    available,
    check_request,
    chosen_files,
    near_names,
    normal_path,
    patched_labels,
)


def manifest(*paths: str) -> Manifest:
    return Manifest(
        entries=tuple(ManifestEntry(path=path, size=1, sha256="a" * 64) for path in paths)
    )


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("outputs/x", "outputs/x"),
        ("./outputs/x", "outputs/x"),
        ("outputs/x/", "outputs/x"),
        ("outputs//./x", "outputs/x"),
    ],
)
def test_paths_are_normalised(path: str, normal: str) -> None:
    assert normal_path(path) == normal


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "outputs/../../x", ".", "./", "/"])
def test_paths_that_lead_out(path: str) -> None:
    with pytest.raises(UserError) as caught:
        normal_path(path)
    assert caught.value.code == "model.path"


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("outputs/model", ["model/a", "model/v/b"]),
        ("outputs/model/a", ["a"]),
        ("outputs", ["outputs/model/a", "outputs/model/v/b", "outputs/model2"]),
        ("top", ["top"]),
    ],
)
def test_files_are_relative_to_the_parent(path: str, files: list[str]) -> None:
    outputs = manifest("outputs/model/a", "outputs/model/v/b", "outputs/model2", "top")
    assert [entry.path for entry in chosen_files(outputs, path, "r").entries] == files


def test_a_missing_path_names_what_there_is() -> None:
    with pytest.raises(NotFoundError) as caught:
        chosen_files(manifest("outputs/model.h5"), "outputs/mod", "r")
    assert caught.value.code == "model.path_not_found"
    assert "outputs/model.h5" in caught.value.message
    many = available(manifest(*(f"outputs/{n:03}" for n in range(30))))
    assert "outputs/019" in many
    assert "outputs/020" not in many
    assert "10 more" in many
    assert "no files" in available(Manifest())


@pytest.mark.parametrize(
    "request_",
    [
        ModelRequest(name="m"),
        ModelRequest(name="m", run_id="r", manifest=manifest("a")),
        ModelRequest(name="m", manifest=Manifest()),
        ModelRequest(name="m", run_id="r", tags={str(n): None for n in range(201)}),
        ModelRequest(name="m", run_id="r", properties={"a": "x" * 5000}),
    ],
)
def test_bad_requests(request_: ModelRequest) -> None:
    with pytest.raises(UserError):
        check_request(request_)


def test_patches() -> None:
    patch = ModelPatch(tags={"a": "2", "c": None}, remove_tags=("b",), properties={"q": "1"})
    tags, properties = patched_labels(patch, {"a": "1", "b": "1"}, {"p": "1"})
    assert (tags, properties) == ({"a": "2", "c": None}, {"p": "1", "q": "1"})
    assert patched_labels(ModelPatch(properties={"p": "1"}), {}, {"p": "1"})[1] == {"p": "1"}
    with pytest.raises(ConflictError) as caught:
        patched_labels(ModelPatch(properties={"p": "2"}), {}, {"p": "1"})
    assert caught.value.code == "model.property_immutable"
    with pytest.raises(UserError):
        patched_labels(ModelPatch(tags={"x": None}), {str(n): None for n in range(200)}, {})


def test_near_names() -> None:
    assert "'keras-mnist'" in near_names("Keras-minst", ["keras-mnist", "other"])
    assert near_names("zzz", ["keras-mnist"]) == ""
