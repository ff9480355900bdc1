"""What a rerun asks for, and when two runs came to the same. Pure."""

from datetime import UTC, datetime
from typing import Any

import pytest

from stellwerk.answers import Series
from stellwerk.api import RunFileView, RunView
from stellwerk.errors import UserError
from stellwerk.events.dataset import ResolvedInput
from stellwerk.events.image import ImageInfo
from stellwerk.rerun import RERUN_OF, pinned
from stellwerk.rerun_compare import compare, outcome
from stellwerk.runspec import (
    DatasetInput,
    DatasetOutput,
    EnvironmentPin,
    EnvironmentReference,
    InlineSource,
    OutputRegistration,
    RunSpec,
)

LOCK, DATA = "c" * 64, "d" * 40
SPEC = RunSpec(
    source=InlineSource(inline={"a.py": "pass"}),
    script="a.py",
    arguments=("--x", 1),
    inputs={"mnist": DatasetInput(dataset="mnist", mode="download")},
    outputs={"out": DatasetOutput(path="fixed", register_as=OutputRegistration(name="made"))},
    environment=EnvironmentReference(name="keras"),
    properties={"k": "v"},
)
READ = ResolvedInput(
    dataset_id=DATA, name="mnist", version=3, mode="download", path=None,
    manifest="e" * 64, files=1, bytes=1, single_file=False,
)  # fmt: skip
IMAGE = ImageInfo(env_id="a" * 40, name="keras", version=2, lock_digest=LOCK, image="r/e@sha256:1")


def view(**changes: Any) -> RunView:
    fields: dict[str, Any] = {
        "run_id": "1" * 32,
        "experiment": "e",
        "status": "Completed",
        "target": "local",
        "submitted_at": datetime(2026, 1, 1, tzinfo=UTC),
        "spec": SPEC,
        "image": IMAGE,
        "inputs": {"mnist": READ},
    }
    return RunView(**{**fields, **changes})


def test_what_was_open_is_as_it_was_recorded_and_all_else_is_the_same() -> None:
    spec = pinned(view())
    assert spec.environment_pin == EnvironmentPin(
        env_id="a" * 40, lock_digest=LOCK, image="r/e@sha256:1"
    )
    assert spec.environment == EnvironmentReference(name="keras", version=2)
    assert spec.inputs["mnist"] == DatasetInput(dataset=DATA, mode="download")
    assert spec.outputs["out"].register_as is None
    assert spec.outputs["out"].path == "dataset/{run-id}/{output-name}"
    assert spec.properties == {"k": "v", RERUN_OF: "1" * 32}
    same = {"source", "script", "arguments", "target", "resources", "environment_variables"}
    assert spec.model_dump(include=same) == SPEC.model_dump(include=same)
    assert pinned(view(), "big").target == "big"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"image": None, "status": "Failed"}, "rerun.not_prepared"),
        ({"inputs": {}}, "rerun.not_prepared"),
        ({"spec": RunSpec(kind="interactive")}, "rerun.interactive"),
    ],
)
def test_a_run_that_recorded_too_little_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(UserError) as refused:
        pinned(view(**changes))
    assert refused.value.code == code


def series(name: str, *values: Any, kind: str = "scalar") -> Series:
    return Series(run_id="r", name=name, kind=kind, values=list(values))


def file(path: str, digest: str) -> RunFileView:
    return RunFileView(path=path, size=1, sha256=digest)


def test_the_same_files_and_values_match_whatever_logs_and_image_names_say() -> None:
    before = outcome(
        [file("outputs/m", "1"), file("user_logs/std_log.txt", "2"), file("curve_1.png", "3")],
        [series("loss", 1.0, "NaN"), series("curve", "curve_1.png", kind="image")],
        {"out:a": "4"},
    )
    after = outcome(
        [file("outputs/m", "1"), file("user_logs/std_log.txt", "9"), file("curve_2.png", "3")],
        [series("loss", 1.0), series("loss", "NaN"), series("curve", "curve_2.png", kind="image")],
        {"out:a": "4"},
    )
    found = compare("a", before, "b", after)
    assert found.match
    assert str(found) == "match: 2 files and 2 metrics are the same"


def test_every_difference_is_named() -> None:
    before = outcome([file("outputs/m", "1" * 64), file("x", "2")], [series("loss", 1.0)], {})
    after = outcome([file("outputs/m", "3" * 64)], [series("loss", 1.0, 2.0)], {"out:a": "4"})
    found = compare("a", before, "b", after)
    assert not found.match
    assert str(found).splitlines() == [
        "different: 4 differences among 3 files and 1 metric",
        "  file out:a: none -> 4",
        f"  file outputs/m: {'1' * 12} -> {'3' * 12}",
        "  file x: 2 -> none",
        "  metric loss: 1.0 -> [1.0, 2.0]",
    ]
