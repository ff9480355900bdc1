"""What was done to make an attempt ready, as a log file of the run."""

from pathlib import Path

NAME = "azureml-logs/65_job_prep.txt"
"""The name it has in runs of the Azure ML SDK v1."""


def note(folder: Path, text: str) -> None:
    """Add a line to the preparation log of the attempt in ``folder``."""
    path = folder / NAME
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as log:
        log.write(f"{text}\n")
