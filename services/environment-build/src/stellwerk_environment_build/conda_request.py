"""What is said to the process that calls the conda solver, and what it answers."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Request(BaseModel):
    """What is to be done. ``channels``: names, first ones win; ``addresses`` of some of them.

    ``alias``: where the others lie, None is conda's own place. ``cache``: a folder to keep files
    in; ``lock``: what ``solve`` writes and ``install`` reads; ``target``: where ``install`` puts
    the environment, for use at ``prefix``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[str, ...]
    addresses: dict[str, str] = {}
    alias: str | None = None
    packages: tuple[str, ...] = ()
    cuda: bool = False
    cache: Path
    lock: Path = Path("conda.lock")
    target: Path = Path("env")
    prefix: Path = Path("env")


class Answer(BaseModel):
    """``error`` None: it is done. ``answering``: channels that a probe could reach."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: str | None = None
    message: str = ""
    answering: tuple[str, ...] = ()
