"""``export_to_tensorboard``: logged values of a run as TensorBoard event files."""

import importlib.util
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from azureml.exceptions import UserErrorException
from stellwerk.run import Run

__all__ = ["export_to_tensorboard"]


def export_to_tensorboard(
    run_data: Run | list[Run], logs_path: str, logger: Any = None, recursive: bool = True
) -> None:
    """Write the numbers that runs logged below ``logs_path``, a folder for each run.

    Values become the steps 0, 1, … in the order they were logged; what is no number is left out.
    ``recursive``: children too. Raises UserErrorException where TensorBoard is not installed.
    """
    del logger
    if importlib.util.find_spec("tensorboard") is None:
        raise UserErrorException(
            "TensorBoard is not installed in this Python: pip install tensorboard"
        )
    for run in [run_data] if isinstance(run_data, Run) else run_data:
        _export(run, Path(logs_path))
        for child in run.get_children() if recursive else ():
            _export(child, Path(logs_path))


def _export(run: Run, folder: Path) -> None:
    event = import_module("tensorboard.compat.proto.event_pb2").Event
    summary = import_module("tensorboard.compat.proto.summary_pb2").Summary
    writers = import_module("tensorboard.summary.writer.event_file_writer")
    writer = writers.EventFileWriter(str(folder / run.id))
    began = run.view.started_at
    clock = began.timestamp() if began is not None else time.time()
    for name, values in run.get_metrics().items():
        series = values if isinstance(values, list) else [values]
        for step, value in enumerate(series):
            if isinstance(value, int | float):
                shown = summary(value=[summary.Value(tag=name, simple_value=float(value))])
                writer.add_event(event(wall_time=clock + step, step=step, summary=shown))
    writer.close()
