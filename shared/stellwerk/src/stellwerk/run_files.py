"""Which of a run's files a download means, and where they go. Pure."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from stellwerk.api import RunFileView
from stellwerk.downloads import inside
from stellwerk.errors import NotFoundError, UserError

_SHOWN_NAMES = 20


def single(files: Sequence[RunFileView], name: str, output: str | None) -> tuple[RunFileView, Path]:
    """The file called ``name`` and its local path. Raises NotFoundError listing what there is."""
    found = next((each for each in files if each.path == name.removeprefix("./")), None)
    if found is None:
        raise _no_file(name, files)
    target = Path(output or ".")
    if target.is_dir() or (output or "").endswith("/"):
        target = inside(target, PurePosixPath(found.path).name)
    return found, target


def below(
    files: Sequence[RunFileView],
    prefix: str | None,
    folder: Path,
    *,
    output_paths: Sequence[str] | None = None,
    append_prefix: bool = True,
) -> list[tuple[RunFileView, Path]]:
    """The files below ``prefix`` and their local paths. Raises NotFoundError, UserError."""
    prefix = (prefix or "").removeprefix("./").rstrip("/")
    chosen = [each for each in files if _is_below(each.path, prefix)]
    if not chosen:
        raise _no_file(prefix, files)
    if output_paths is None:
        cut = "" if append_prefix else prefix
        targets = [inside(folder, _without(each.path, cut)) for each in chosen]
    elif len(output_paths) != len(chosen):
        raise UserError(
            f"output_paths: got {len(output_paths)} paths for {len(chosen)} files",
            field="output_paths",
        )
    else:
        targets = [folder / each for each in output_paths]
    return list(zip(chosen, targets, strict=True))


def _is_below(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(prefix + "/")


def _without(path: str, prefix: str) -> str:
    if path == prefix:
        return PurePosixPath(path).name
    return path.removeprefix(prefix + "/") if prefix else path


def _no_file(name: str, files: Sequence[RunFileView]) -> NotFoundError:
    names = [each.path for each in files]
    shown = ", ".join(names[:_SHOWN_NAMES]) + (", …" if len(names) > _SHOWN_NAMES else "")
    return NotFoundError(
        f"The run has no file {name!r}. It has: {shown or 'no files'}",
        code="file.not_found",
        field="name",
    )
