"""What is said to the process that calls the conda solver, and what it answers."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Request(BaseModel):
    """What is to be done. ``channels``: names, first ones win; ``addresses`` of some of them.

    ``alias``: where the others lie, None is conda's own place. ``cache``: a folder to keep files
    in; ``lock``: what ``solve`` writes and ``fetch`` reads; ``records``: what ``fetch`` writes and
    ``link`` reads; ``target``: where ``link`` puts the environment, for use at ``prefix``.
    ``readable``: folders outside of it that links of packages may lead to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[str, ...]
    addresses: dict[str, str] = {}
    alias: str | None = None
    packages: tuple[str, ...] = ()
    cuda: bool = False
    cache: Path
    readable: tuple[Path, ...] = ()
    lock: Path = Path("conda.lock")
    records: Path = Path("records")
    target: Path = Path("env")
    prefix: Path = Path("env")


class Answer(BaseModel):
    """``error`` None: it is done. ``answering``: channels that a probe could reach."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: str | None = None
    message: str = ""
    answering: tuple[str, ...] = ()
