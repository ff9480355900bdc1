"""Imports and first training step: records of the run's process, seconds on its node's clock."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from real_attempts import launcher, read, request

from stellwerk_gpu_executor.marks import KIND, REPORTS, Progress
from stellwerk_shim import marks

KERAS = {
    "keras/__init__.py": "import time; time.sleep(0.15); from keras.src import callbacks",
    "keras/src/__init__.py": "",
    "keras/src/callbacks.py": """
class CallbackList:
    def on_train_batch_end(self, batch, logs=None):
        print('batch', batch, logs)
""",
}
SCRIPT = """
import sys, os
print('sitecustomize' in sys.modules, 'STELLWERK_MARKS' in os.environ)
import keras
from keras.src.callbacks import CallbackList
for batch in range(2):
    CallbackList().on_train_batch_end(batch, logs={'loss': batch})
print(CallbackList.on_train_batch_end.__qualname__, [f for f in sys.meta_path if 'Marks' in repr(f)])
"""


def site(folder: Path, **files: str) -> Path:
    """A path entry with the watcher and these modules."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    shutil.copy(str(marks.__file__), folder / "sitecustomize.py")
    return folder


async def run(folder: Path, script: str, path: str, **env: str) -> tuple[bytes, list[Any], float]:
    """Its output, its marks, and when its program was loaded."""
    async with launcher(folder) as service:
        asked = request(
            folder / "attempt", script, env={"PYTHONPATH": path, marks.WANTED: "1", **env}
        )
        handle = await service.start(asked)
        await handle.wait()
        records = [json.loads(line) for line in read(handle.attempt.records).splitlines()]
        shim = handle.attempt.read_shim()
        assert shim is not None
        assert shim.began_mono is not None
        found = [each for each in records if each["k"] == KIND]
        return read(handle.attempt.log), found, shim.began_mono


async def test_a_cold_script_tells_its_imports_and_its_first_step(tmp_path: Path) -> None:
    output, found, began = await run(tmp_path, SCRIPT, str(site(tmp_path / "site", **KERAS)))
    assert output == (
        b"False False\nbatch 0 {'loss': 0}\nbatch 1 {'loss': 1}\nCallbackList.on_train_batch_end []\n"
    )
    assert [set(each) - {"k", "pid", "ts"} for each in found] == [
        {"imports"},
        {"imports", "first_step"},
    ]
    assert began + 0.15 <= found[0]["imports"] == found[1]["imports"] <= found[1]["first_step"]


async def test_what_the_script_starts_is_not_watched_and_nothing_is_told_of_no_framework(
    tmp_path: Path,
) -> None:
    script = """
import multiprocessing, os, subprocess, sys
subprocess.run([sys.executable, '-c', 'import keras'], check=True)
if os.fork() == 0:
    import keras
    os._exit(0)
os.wait()
print('done')
"""
    output, found, _ = await run(tmp_path, script, str(site(tmp_path / "site", **KERAS)))
    assert (output, found) == (b"done\n", [])


async def test_another_sitecustomize_is_found_as_without_ours(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import builtins; builtins.customized = __file__")
    path = f"{site(tmp_path / 'site')}:{own}"
    script = "import sys; print(customized, sys.modules['sitecustomize'].__file__)"
    output, _, _ = await run(tmp_path, script, path)
    assert output.decode().split() == [str(own / "sitecustomize.py")] * 2


@pytest.mark.parametrize(
    ("records", "known"),
    [
        ([{"pid": 7, "imports": 12.5}], {"imports": 2.5}),
        ([{"pid": 7, "imports": 12.5, "first_step": 13.0}], {"imports": 2.5, "first_step": 0.5}),
        ([{"pid": 7, "first_step": 13.0}], {"first_step": 3.0}),
        ([{"pid": 7, "imports": 12.0}, {"pid": 7, "imports": 12.5}], {"imports": 2.5}),
        ([{"pid": 7, "imports": 12.0}, {"pid": 8, "imports": 12.5}], {"imports": 2.0}),
        ([{"pid": 7, "first_step": 13.0}, {"pid": 7, "first_step": 14.0}], {"first_step": 3.0}),
        ([{"pid": 7, "imports": 9.0}], {}),
        ([{"pid": 7, "imports": 101.0}], {}),
        ([{"pid": 7, "imports": float("nan")}, {"imports": "12"}, {}], {}),
    ],
)
def test_only_possible_times_of_the_first_process_count(
    records: list[dict[str, Any]], known: dict[str, float]
) -> None:
    progress = Progress(10.0)
    for record in records:
        progress.take(record, 100.0)
    assert progress.news() == known
    assert progress.news() == {}


def test_marks_without_end_are_told_a_few_times_and_the_first_step_still_is() -> None:
    progress, told = Progress(10.0), []
    moments = [{"pid": 7, "imports": 10.0 + number} for number in range(50)]
    for record in [*moments, *({**each, "first_step": 90.0} for each in moments)]:
        progress.take(record, 100.0)
        told.append(progress.news())
    assert len([steps for steps in told if steps]) == REPORTS
    assert [steps for steps in told if "first_step" in steps] == [
        {"imports": 0.0, "first_step": 80.0}
    ]


def test_why_a_script_began_again_is_told_once() -> None:
    progress = Progress(10.0)
    assert progress.cold_reason() is None
    for record in (
        {"pid": 7, "cold": "x" * 900},
        {"pid": 8, "cold": "another's"},
        {"pid": 7, "cold": 5},
    ):
        progress.take(record, 100.0)
    assert progress.cold_reason() == "x" * 500
    progress.take({"pid": 7, "cold": "again"}, 100.0)
    assert progress.cold_reason() is None
    progress.take({"pid": 7, "imports": 12.0}, 100.0)
    assert progress.news() == {"imports": 2.0}
