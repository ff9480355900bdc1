"""What the SDK says about a field before anything is sent: the field, what was got, the limit."""

from collections.abc import Callable

import pytest

from stellwerk import AmlCompute, ComputeTarget, Environment, Model, Run, UserError, Workspace
from stellwerk.api import DatasetRequest, DatasetView, ModelView, RunView
from stellwerk.config import Connection
from stellwerk.dataset import FileDataset
from stellwerk.errors import ComputeTargetException
from stellwerk.refusals import naming_the_field
from stellwerk.runspec import RunSpec

NOW = "2026-01-01T00:00:00Z"
NOWHERE = Workspace.of(Connection("http://127.0.0.1:9", None, "default", "test"))
DATASET = FileDataset(
    view=DatasetView.model_validate(
        {"dataset_id": "d", "files": 1, "bytes": 1, "source": "files", "created_at": NOW}
    )
)
RUN = Run.of_view(
    NOWHERE,
    RunView.model_validate(
        {
            "run_id": "r",
            "experiment": "e",
            "status": "Completed",
            "target": "local",
            "submitted_at": NOW,
        }
    ),
)


def model() -> Model:
    view = ModelView.model_validate(
        {
            "model_id": "m",
            "name": "m",
            "version": 1,
            "lineage": {},
            "manifest": "0",
            "files": 1,
            "bytes": 1,
            "created_at": NOW,
        }
    )
    return Model.of_view(NOWHERE, view)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(UserError, match="not valid Unicode"):
        RUN.tag("a", "\udcff")


CASES: dict[str, tuple[Callable[[], object], str, str]] = {
    "dataset": (lambda: DATASET.register(NOWHERE, "a/b"), "name", "255 letters"),
    "environment": (lambda: Environment("a/b").register(NOWHERE), "name", "255 letters"),
    "model of a run": (lambda: RUN.register_model("a/b", "outputs"), "name", "255 letters"),
    "tag of a run": (lambda: RUN.tag("", "a/b"), "tags", "at least 1 character"),
    "model's tag": (lambda: model().add_tags({"": "a/b"}), "tags", "at least 1 character"),
    "cluster": (
        lambda: ComputeTarget.create(
            NOWHERE, "A/b", AmlCompute.provisioning_configuration(max_nodes=1)
        ),
        "name",
        "32 of a-z",
    ),
    "cluster's size": (
        lambda: ComputeTarget.create(
            NOWHERE, "b", AmlCompute.provisioning_configuration(max_nodes=0)
        ),
        "max_nodes",
        "It must be greater than or equal to 1",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_refused_field_is_named_with_its_limit(case: str) -> None:
    call, field, limit = CASES[case]
    with pytest.raises((UserError, ComputeTargetException)) as caught:
        call()
    assert str(caught.value).startswith(field)
    assert limit in str(caught.value)
    assert "got " in str(caught.value)
    assert (caught.value.field or "").startswith(field)
    assert "pydantic" not in str(caught.value)
    assert "pattern" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x"] * 1001, "arguments: It has 1001 entries; at most 1000 are allowed."),
        ("--epochs 5", "arguments: got '--epochs 5'. It must be a list."),
    ],
)
def test_a_list_is_asked_for_and_counted(arguments: object, said: str) -> None:
    with pytest.raises(UserError) as caught, naming_the_field():
        RunSpec.model_validate({"kind": "interactive", "arguments": arguments})
    assert caught.value.message == said


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"kind": "url"}, "kind must be 'files', 'urls', 'datastore' or 'dataset'"),
        ({}, "kind is required"),
    ],
)
def test_a_form_that_is_none_is_told_which_there_are(source: object, said: str) -> None:
    with pytest.raises(UserError, match=said), naming_the_field():
        DatasetRequest.model_validate({"source": source})
