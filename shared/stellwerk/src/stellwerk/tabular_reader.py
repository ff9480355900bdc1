"""Evaluates a tabular dataset's definition with pandas, in the user's environment.

pandas (and pyarrow for Parquet) are imported on first use and not required by this package.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from stellwerk.errors import UserError
from stellwerk.tabular_definition import (
    ColumnType,
    Drop,
    Filter,
    Keep,
    Sample,
    Skip,
    Step,
    TabularDefinition,
    Take,
    TimeRange,
)
from stellwerk.tabular_filter import evaluate
from stellwerk.tabular_partitions import partition_columns

PATH_COLUMN = "Path"
LOOKED_AT = 50
"""Rows whose text decides whether a column may hold dates; then all of them have to."""

_ENCODINGS = {"utf8bom": "utf-8-sig", "windows1252": "cp1252", "iso88591": "iso-8859-1"}
_DTYPES = {"string": "str", "integer": "Int64", "decimal": "float64", "boolean": "boolean"}
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?")

File = tuple[str, Path]
"""A file's path in the dataset, and where it lies."""


def needed(module: str, what_for: str) -> Any:
    """The module, or UserError saying what to install."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{what_for} needs {module}, which this environment does not have. Install it with "
            f"`pip install {module}`, or name it in the run's environment.",
            code="dependency.missing",
        ) from error
    except ImportError as error:
        raise UserError(
            f"{what_for} needs {module}, which this environment has but cannot load: {error}",
            code="dependency.broken",
        ) from error


def read_table(definition: TabularDefinition, files: Sequence[File]) -> Any:
    """The table as a pandas frame. Raises UserError for what does not fit the files."""
    pandas = needed("pandas", "A tabular dataset")
    if definition.format == "parquet":
        needed("pyarrow", "A tabular dataset of Parquet files")
    frames: list[Any] = []
    for path, local in files:
        try:
            frame = _read(pandas, definition, local, frames)
        except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
            raise UserError(
                f"{path} cannot be read as {definition.format}: {error}", code="dataset.content"
            ) from error
        if definition.partition_format is not None:
            for name, value in partition_columns(definition.partition_format, path).items():
                frame[name] = value
        if definition.include_path:
            frame.insert(0, PATH_COLUMN, "/" + path.lstrip("/"))
        frames.append(frame)
    table = frames[0] if len(frames) == 1 else pandas.concat(frames, ignore_index=True)
    for name, wanted in definition.column_types.items():
        if name in table.columns:
            table[name] = _converted(pandas, table[name], wanted)
    for step in definition.steps:
        table = _apply(pandas, table, step).reset_index(drop=True)
    return table


def _read(pandas: Any, definition: TabularDefinition, file: Path, before: Sequence[Any]) -> Any:
    if definition.format == "parquet":
        return pandas.read_parquet(file, engine="pyarrow")
    encoding = _ENCODINGS.get(definition.encoding, definition.encoding)
    if definition.format == "json-lines":
        return pandas.read_json(file, lines=True, encoding=encoding)
    named = definition.headers != "none" and not (
        definition.headers == "only-first-file" and before
    )
    text = [name for name, wanted in definition.column_types.items() if wanted.kind == "string"]
    frame = pandas.read_csv(
        file,
        sep=definition.separator,
        header=0 if named else None,
        encoding=encoding,
        dtype=dict.fromkeys(text, "str") if definition.infer_types else "str",
        engine="c" if len(definition.separator) == 1 else "python",
    )
    if definition.headers == "none":
        frame.columns = [f"Column{number + 1}" for number in range(len(frame.columns))]
    elif not named:
        frame.columns = list(before[0].columns)[: len(frame.columns)]
    frame.columns = [str(name).strip() for name in frame.columns]
    return _with_dates(pandas, frame, definition) if definition.infer_types else frame


def _with_dates(pandas: Any, frame: Any, definition: TabularDefinition) -> Any:
    """Columns of text that hold ISO dates throughout become times."""
    for name in frame.columns:
        values = frame[name]
        if pandas.api.types.is_numeric_dtype(values) or name in definition.column_types:
            continue
        first = values.dropna().head(LOOKED_AT).astype(str)
        if len(first) and first.map(lambda text: bool(_ISO_DATE.fullmatch(text))).all():
            try:
                frame[name] = pandas.to_datetime(values, format="ISO8601")
            except ValueError:
                continue
    return frame


def _converted(pandas: Any, values: Any, wanted: ColumnType) -> Any:
    """Values as another type; what cannot be one is missing."""
    if wanted.kind == "datetime":
        result = pandas.to_datetime(
            values, format=wanted.formats[0] if wanted.formats else None, errors="coerce"
        )
        for other in wanted.formats[1:]:
            result = result.fillna(pandas.to_datetime(values, format=other, errors="coerce"))
        return result
    if wanted.kind == "string":
        return values.astype("str").where(values.notna())
    if wanted.kind == "boolean":
        known = {"true": True, "1": True, "false": False, "0": False}
        return values.map(lambda value: known.get(str(value).strip().lower())).astype("boolean")
    numbers = pandas.to_numeric(values, errors="coerce")
    if wanted.kind == "integer":
        return numbers.round().astype("Int64") if numbers.isna().any() else numbers.astype("int64")
    return numbers.astype(_DTYPES[wanted.kind])


def _apply(pandas: Any, table: Any, step: Step) -> Any:
    match step:
        case Keep():
            return table[_present(table, step.columns)]
        case Drop():
            return table.drop(columns=list(step.columns), errors="ignore")
        case Take():
            return table.head(step.count)
        case Skip():
            return table.iloc[step.count :]
        case Sample():
            random = needed("numpy", "A sample").random.default_rng(step.seed)
            chosen = random.random(len(table)) < step.probability
            return table[~chosen if step.rest else chosen]
        case Filter():
            return table[_holds(table, step.expression)]
        case TimeRange():
            return table[_in_time(pandas, table, step)]


def _holds(table: Any, expression: Any) -> Any:
    try:
        return evaluate(table, expression)
    except TypeError as error:  # such as text compared with a number
        raise UserError(f"filter: {error}", code="dataset.filter") from error


def _present(table: Any, columns: Sequence[str]) -> list[str]:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(
            f"columns: there is no column {missing[0]!r}; columns are "
            f"{', '.join(map(str, table.columns))}",
            code="dataset.column",
            field="columns",
        )
    return list(columns)


def _in_time(pandas: Any, table: Any, step: TimeRange) -> Any:
    (name,) = _present(table, [step.column])
    times = pandas.to_datetime(table[name], utc=True)
    fits = times.notna()
    if step.start is not None:
        start = _utc(step.start)
        fits &= times >= start if step.inclusive else times > start
    if step.end is not None:
        end = _utc(step.end)
        fits &= times <= end if step.inclusive else times < end
    return fits


def _utc(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)
