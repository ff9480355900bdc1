"""What no machine can do with a run's texts and paths, said before the run is accepted. Pure.

The event's own model stays wider than this: whoever publishes on the bus gets the same reasons as
the error of the run.
"""

from collections.abc import Iterator

from stellwerk.errors import UserError
from stellwerk.manifest import safe_path
from stellwerk.runspec import InlineSource, RunSpec


def check_possible(spec: RunSpec) -> None:
    """Raise UserError source.path, source.ambiguous, input.path, output.path or text.nul."""
    if isinstance(spec.source, InlineSource):
        _check_source(spec.source)
    for name, asked in spec.inputs.items():
        if asked.path is not None:
            _checked(f"spec.inputs.{name}.path", asked.path.removeprefix("./").rstrip("/"), "input")
    for name, output in spec.outputs.items():
        field = f"spec.outputs.{name}"
        _checked(f"{field}.path", output.place("r", name), "output")
        if output.path_on_compute is not None:
            inside = output.path_on_compute.removeprefix("./").rstrip("/")
            _checked(f"{field}.path_on_compute", inside, "output")
    for field, text in _texts(spec):
        if "\0" in text:
            raise UserError(
                f"{field}: character U+0000 at position {text.index(chr(0))} cannot be passed to a "
                "program; leave it out.",
                code="text.nul",
                field=field,
            )


def _check_source(source: InlineSource) -> None:
    field = "spec.source.inline"
    paths = {name: _checked(field, name, "source") for name in source.inline}
    parents = {parent for path in paths.values() for parent in _parents(path)}
    for name, path in paths.items():
        if path in parents:
            _refuse_ambiguous(field, name, "is both a file and a folder")
        if sum(each == path for each in paths.values()) > 1:
            _refuse_ambiguous(field, name, "stands there twice, written in two ways")


def _refuse_ambiguous(field: str, name: str, why: str) -> None:
    raise UserError(f"{field}: {name!r} {why}; rename one.", code="source.ambiguous", field=field)


def _checked(field: str, path: str, kind: str) -> str:
    try:
        return safe_path(path)
    except ValueError as error:
        raise UserError(
            f"{field}: {error}. Give a path below the run's folder.",
            code=f"{kind}.path",
            field=field,
        ) from error


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _texts(spec: RunSpec) -> Iterator[tuple[str, str]]:
    for field in ("command", "arguments"):
        for index, each in enumerate(getattr(spec, field) or ()):
            if isinstance(each, str):
                yield f"spec.{field}[{index}]", each
    for name, value in spec.environment_variables.items():
        yield f"spec.environment_variables.{name}", value
    yield "spec.script", spec.script or ""
