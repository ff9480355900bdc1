"""Tables: how files are read, steps, columns of the path, conditions. With pandas, without a platform."""

import builtins
import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stellwerk import Dataset, DatasetTimestampMissingError, TabularDataset, UserError
from stellwerk.api import DatasetRequest, DatasetUrls
from stellwerk.tabular_definition import TabularDefinition
from stellwerk.tabular_factory import DataType, PromoteHeadersBehavior, delimited, parquet
from stellwerk.tabular_filter import column, evaluate
from stellwerk.tabular_partitions import partition_columns
from stellwerk.tabular_reader import read_table

URL = "https://x.example/a.csv"


def table(folder: Path, definition: TabularDefinition, **contents: bytes) -> Any:
    files = []
    for name, content in contents.items():
        path = folder / name
        path.write_bytes(content)
        files.append((name, path))
    return read_table(definition, files)


def test_types_are_inferred(tmp_path: Path) -> None:
    found = table(tmp_path, delimited(), a=b"n,x,day,t\n1,1.5,2026-01-02,a\n2,,2026-01-03,\n")
    assert [str(kind) for kind in found.dtypes][:2] == ["int64", "float64"]
    assert found["day"].iloc[1] == datetime(2026, 1, 3)  # noqa: DTZ001
    assert found["t"].tolist()[0] == "a"
    plain = table(tmp_path, delimited(infer_column_types=False), a=b"n,day\n1,2026-01-02\n")
    assert plain.iloc[0].tolist() == ["1", "2026-01-02"]


@pytest.mark.parametrize(
    ("header", "columns", "rows"),
    [
        (PromoteHeadersBehavior.ALL_FILES_HAVE_SAME_HEADERS, ["a", "b"], 2),
        (True, ["a", "b"], 2),
        (PromoteHeadersBehavior.ONLY_FIRST_FILE_HAS_HEADERS, ["a", "b"], 3),
        (PromoteHeadersBehavior.NO_HEADERS, ["Column1", "Column2"], 4),
        (False, ["Column1", "Column2"], 4),
    ],
)
def test_headers(tmp_path: Path, header: Any, columns: list[str], rows: int) -> None:
    found = table(tmp_path, delimited(header=header), f1=b"a,b\n1,2\n", f2=b"a,b\n3,4\n")
    assert (list(found.columns), len(found)) == (columns, rows)


def test_different_headers_are_joined(tmp_path: Path) -> None:
    every = PromoteHeadersBehavior.COMBINE_ALL_FILES_HEADERS
    found = table(tmp_path, delimited(header=every), f1=b"a,b\n1,2\n", f2=b"b,c\n3,4\n")
    assert list(found.columns) == ["a", "b", "c"]
    assert found["b"].tolist() == [2, 3]


def test_separator_encoding_compression_and_path(tmp_path: Path) -> None:
    definition = delimited(separator="\t", encoding="windows1252", include_path=True)
    path = tmp_path / "in.tab.gz"
    path.write_bytes(gzip.compress("n\tname\n1\tMüller\n".encode("cp1252")))
    found = read_table(definition, [("sub/in.tab.gz", path)])
    assert found.to_dict("records") == [{"Path": "/sub/in.tab.gz", "n": 1, "name": "Müller"}]


def test_column_types(tmp_path: Path) -> None:
    kinds = {
        "zip": DataType.to_string(), "n": DataType.to_long(), "x": DataType.to_float(),
        "ok": DataType.to_bool(), "day": DataType.to_datetime(["%d.%m.%Y", "%Y/%m/%d"]),
        "none": DataType.to_string(),
    }  # fmt: skip
    content = b"zip,n,x,ok,day\n01234,1,0.5,TRUE,02.01.2026\n5,,oops,0,2026/01/03\n"
    found = table(tmp_path, delimited(set_column_types=kinds), a=content)
    assert found["zip"].tolist() == ["01234", "5"]
    assert (found["n"].iloc[0], found["n"].isna().tolist()) == (1, [False, True])
    assert found["x"].isna().tolist() == [False, True]
    assert found["ok"].tolist() == [True, False]
    assert found["day"].dt.day.tolist() == [2, 3]


def test_parquet(tmp_path: Path) -> None:
    for year in (2019, 2020):
        frame = pd.DataFrame({"v": [year, year + 1]})
        (tmp_path / str(year)).mkdir()
        frame.to_parquet(tmp_path / str(year) / "d.parquet")
    files = [(f"{year}/d.parquet", tmp_path / str(year) / "d.parquet") for year in (2019, 2020)]
    definition = parquet(partition_format="/weather/{when:yyyy}/d.parquet")
    found = read_table(definition, files)
    assert found["v"].tolist() == [2019, 2020, 2020, 2021]
    assert found["when"].dt.year.tolist() == [2019, 2019, 2020, 2020]


def test_json_lines(tmp_path: Path) -> None:
    definition = TabularDefinition(format="json-lines")
    assert table(tmp_path, definition, a=b'{"a": 1}\n{"a": 2}\n')["a"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("form", "path", "columns"),
    [
        ("/{dep}/{day:yyyy/MM/dd}/data.csv", "x/sales/2019/01/02/data.csv", {"dep": "sales", "day": datetime(2019, 1, 2)}),  # noqa: DTZ001
        ("{dep}/data*.csv", "/sales/data-7.csv", {"dep": "sales"}),
        ("root/sub/{dep}/d.csv", "a/d.csv", {"dep": "a"}),
        ("{t:yyyyMMdd-HHmmss}.csv", "20190102-030405.csv", {"t": datetime(2019, 1, 2, 3, 4, 5)}),  # noqa: DTZ001
    ],
)  # fmt: skip
def test_columns_of_the_path(form: str, path: str, columns: dict[str, Any]) -> None:
    assert partition_columns(form, path) == columns


def test_a_path_that_does_not_fit() -> None:
    with pytest.raises(UserError, match=r"does not fit the end of path 'a/x.csv'"):
        partition_columns("/{dep}/data.csv", "a/x.csv")


def plan(**more: Any) -> TabularDataset:
    return Dataset.Tabular.from_delimited_files(URL, **more)


def read(tmp_path: Path, dataset: TabularDataset) -> Any:
    lines = ["when,v,w", *(f"2026-01-{day:02},{day},{day % 3}" for day in range(1, 11))]
    return table(tmp_path, dataset.definition, a="\n".join(lines).encode())


def test_steps_in_their_order(tmp_path: Path) -> None:
    data = plan()
    assert read(tmp_path, data.skip(2).take(3).keep_columns(["v"]))["v"].tolist() == [3, 4, 5]
    assert list(read(tmp_path, data.drop_columns("w")).columns) == ["when", "v"]
    found = data.filter((data["v"] > 3) & ~(data["w"] == 0) | (data["v"] == 1))
    assert read(tmp_path, found)["v"].tolist() == [1, 4, 5, 7, 8, 10]
    late = data.filter(data["when"] >= datetime(2026, 1, 9))  # noqa: DTZ001
    assert read(tmp_path, late)["v"].tolist() == [9, 10]
    assert data.definition.steps == ()  # nothing changed it


def test_samples_repeat_and_splits_are_whole(tmp_path: Path) -> None:
    data = plan()
    first, second = data.random_split(0.5, seed=7)
    both = read(tmp_path, first)["v"].tolist(), read(tmp_path, second)["v"].tolist()
    assert sorted([*both[0], *both[1]]) == list(range(1, 11))
    assert both[0] == read(tmp_path, data.random_split(0.5, seed=7)[0])["v"].tolist()
    assert (
        both[0]
        == read(tmp_path, data.sample("simple_random", {"probability": 0.5, "seed": 7}))[
            "v"
        ].tolist()
    )
    assert len(read(tmp_path, data.sample("top_n", {"n": 4}))) == 4
    with pytest.raises(UserError, match="sample_strategy"):
        data.sample("best", {})
    with pytest.raises(UserError, match="probability"):
        data.random_split(2.0)


def test_times(tmp_path: Path) -> None:
    data = plan()
    for call in (data.time_before, data.time_after, data.time_recent):
        with pytest.raises(DatasetTimestampMissingError, match="with_timestamp_columns"):
            call(timedelta(1) if call == data.time_recent else datetime(2026, 1, 1))  # noqa: DTZ001
    timed = data.with_timestamp_columns("when")
    day = lambda number: datetime(2026, 1, number)  # noqa: E731, DTZ001

    def days(dataset: TabularDataset) -> list[int]:
        return list(read(tmp_path, dataset)["v"])

    assert days(timed.time_before(day(2))) == [1, 2]
    assert days(timed.time_before(day(2), include_boundary=False)) == [1]
    assert days(timed.time_after(day(9))) == [9, 10]
    assert days(timed.time_between(day(3), day(4))) == [3, 4]
    assert days(timed.time_after(datetime(2026, 1, 9, tzinfo=UTC))) == [9, 10]
    assert days(timed.time_recent(timedelta(days=1))) == []
    assert timed.timestamp_columns == ("when", None)
    assert timed.keep_columns(["v"]).timestamp_columns == (None, None)
    assert timed.drop_columns(["w"]).timestamp_columns == ("when", None)
    both = data.with_timestamp_columns(fine_grain_timestamp="when", coarse_grain_timestamp="w")
    assert both.timestamp_columns == ("when", "w")
    assert both.drop_columns("w").timestamp_columns == ("when", None)
    assert both.drop_columns(["when"]).timestamp_columns == (None, None)
    assert both.with_timestamp_columns(None, None).timestamp_columns == (None, None)
    with pytest.raises(UserError, match="name both or none"):
        both.with_timestamp_columns(timestamp=None, partition_timestamp="w")
    with pytest.raises(UserError, match="unknown argument 'nope'"):
        data.with_timestamp_columns(nope="x")


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    data = plan()
    assert list(read(tmp_path, data.drop_columns(["x", "w"])).columns) == ["when", "v"]
    for wrong in (data.keep_columns(["x"]), data.filter(data["x"] > 1)):
        with pytest.raises(UserError, match="no column 'x'; columns are when, v, w"):
            read(tmp_path, wrong)
    with pytest.raises(UserError, match="filter: "):
        read(tmp_path, data.filter(data["v"] > "text"))


def test_content_that_is_no_table(tmp_path: Path) -> None:
    for definition, content in ((parquet(), b"no parquet"), (delimited(), b""), (delimited(), b"\xff\xfe,\n1,2\n")):  # fmt: skip
        with pytest.raises(UserError, match="a cannot be read as") as caught:
            table(tmp_path, definition, a=content)
        assert caught.value.code == "dataset.content"


@pytest.mark.parametrize("module", ["pandas", "pyarrow"])
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == module:
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.delitem(__import__("sys").modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr("stellwerk.tabular_reader.import_module", without)
    with pytest.raises(UserError, match=f"pip install {module}"):
        table(tmp_path, parquet(), a=b"")


def test_conditions_are_built_by_operators_only() -> None:
    with pytest.raises(UserError, match="joined with &"):
        bool(column("a") == 1)
    with pytest.raises(UserError, match="object"):
        column("a") > object()  # noqa: B015
    with pytest.raises(UserError, match="is no condition"):
        evaluate(pd.DataFrame(), ["system", "rm", "-rf"])
    with pytest.raises(UserError, match="write dataset"):
        plan().filter(True)  # type: ignore[arg-type]
    tree = ((column("a") != column("b")) & column("c").is_null()).tree
    assert tree == ["and", ["ne", ["column", "a"], ["column", "b"]], ["null", ["column", "c"]]]


def test_only_whole_arguments() -> None:
    with pytest.raises(UserError, match="header"):
        plan(header="yes")
    with pytest.raises(UserError, match="separator"):
        plan(separator="")
    with pytest.raises(UserError, match="from_sql_query"):
        Dataset.Tabular.from_sql_query("select 1")
    with pytest.raises(UserError, match="no Spark"):
        plan().to_spark_dataframe()
    with pytest.raises(UserError, match="cannot be given by mount"):
        plan().as_named_input("t").as_mount()
    assert plan().as_named_input("t").mode == "direct"
    request = DatasetRequest(source=DatasetUrls(urls=(URL,)), tabular=plan().definition)
    assert plan()._request == request
