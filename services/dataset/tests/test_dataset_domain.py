from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api import DatasetFiles, DatastorePath
from stellwerk.errors import NotFoundError, UserError
from stellwerk.manifest import ManifestEntry
from stellwerk_dataset.domain import (
    PathPattern,
    check_tags,
    common_folder,
    from_files,
    from_paths,
    from_urls,
    glob_pattern,
    near_names,
)


def entry(path: str, digit: str = "a") -> ManifestEntry:
    return ManifestEntry(path=path, size=1, sha256=digit * 64)


def files(*paths: str) -> list[str]:
    _, manifest = from_files(DatasetFiles(entries=tuple(entry(path) for path in paths)))
    return [item.path for item in manifest.entries]


KNOWN = [entry(p) for p in ("mnist/a.gz", "mnist/b.gz", "mnist/raw/c.bin", "other/d.txt")]


def chosen(*paths: str) -> tuple[list[str], bool]:
    patterns = [PathPattern.of(DatastorePath(datastore="ds", path=path)) for path in paths]
    dataset, manifest = from_paths([(pattern, KNOWN) for pattern in patterns])
    return [item.path for item in manifest.entries], dataset.single_file


def test_the_common_folder_goes() -> None:
    assert files("data/x/1", "data/x/2") == ["1", "2"]
    assert files("data/x/1", "data/y/2") == ["x/1", "y/2"]
    assert files("data/1", "other/2") == ["data/1", "other/2"]
    assert files("a/b/c.txt") == ["c.txt"]
    assert files("ab/1", "abc/2") == ["ab/1", "abc/2"]


def test_same_definition_same_id() -> None:
    first, _ = from_files(DatasetFiles(entries=(entry("d/1"), entry("d/2"))))
    again, _ = from_files(DatasetFiles(entries=(entry("e/2"), entry("e/1"))))
    other, _ = from_files(DatasetFiles(entries=(entry("d/1"), entry("d/2", "b"))))
    assert first.id == again.id != other.id
    assert first.same_content(again)
    assert not first.same_content(other)


def test_two_files_at_one_place() -> None:
    with pytest.raises(UserError) as caught:
        files("d/1", "d/1")
    assert caught.value.code == "dataset.path_conflict"
    with pytest.raises(UserError):
        files("d", "d/1")


@pytest.mark.parametrize(
    ("path", "expected", "single"),
    [
        ("mnist/", ["a.gz", "b.gz", "raw/c.bin"], False),
        ("/mnist", ["a.gz", "b.gz", "raw/c.bin"], False),
        ("./mnist/a.gz", ["a.gz"], True),
        ("mnist/*.gz", ["a.gz", "b.gz"], False),
        ("mnist/a*", ["a.gz"], False),
        ("mnist/raw", ["c.bin"], False),
        ("**/*.bin", ["mnist/raw/c.bin"], False),
        ("mnist/**", ["a.gz", "b.gz", "raw/c.bin"], False),
        ("/", ["mnist/a.gz", "mnist/b.gz", "mnist/raw/c.bin", "other/d.txt"], False),
    ],
)
def test_datastore_paths(path: str, expected: list[str], single: bool) -> None:
    assert chosen(path) == (expected, single)


def test_several_paths_and_datastores() -> None:
    assert chosen("mnist/a.gz", "mnist/raw/c.bin") == (["a.gz", "raw/c.bin"], False)
    assert chosen("mnist", "mnist/a.gz")[0] == ["a.gz", "b.gz", "raw/c.bin"]
    one, two = (
        PathPattern.of(DatastorePath(datastore=name, path="mnist/a.gz")) for name in ("ds", "two")
    )
    _, manifest = from_paths([(one, KNOWN), (two, KNOWN)])
    assert [item.path for item in manifest.entries] == ["ds/mnist/a.gz", "two/mnist/a.gz"]


def test_nothing_there_and_ways_out() -> None:
    with pytest.raises(NotFoundError) as caught:
        chosen("minst/")
    assert caught.value.code == "datastore.path_not_found"
    with pytest.raises(UserError):
        chosen("mnist/../../etc")


@pytest.mark.parametrize(
    ("glob", "path", "match"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "d/a.csv", False),
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "d/e/a.csv", True),
        ("d/**", "d/e/f", True),
        ("d/[ab].txt", "d/a.txt", True),
        ("d/[!ab].txt", "d/a.txt", False),
        ("d/[!ab].txt", "d/c.txt", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("a.c", "abc", False),
        ("a[b", "a[b", True),
    ],
)
def test_globs(glob: str, path: str, match: bool) -> None:
    assert bool(glob_pattern(glob).fullmatch(path)) is match


@given(st.text(alphabet="ab*?[]!/.\\^-(", max_size=12), st.text(alphabet="ab/", max_size=12))
def test_any_glob_is_a_pattern_or_a_clear_error(glob: str, path: str) -> None:
    with suppress(UserError):
        glob_pattern(glob).fullmatch(path)


@given(st.lists(st.lists(st.sampled_from(["a", "b"]), max_size=4), min_size=1, max_size=4))
def test_the_common_folder_contains_all(parts: list[list[str]]) -> None:
    common = [part for part in common_folder("/".join(item) for item in parts).split("/") if part]
    assert all(item[: len(common)] == common for item in parts)
    longest = [item[len(common)] for item in parts if len(item) > len(common)]
    assert len(longest) < len(parts) or len(set(longest)) > 1


def test_urls_keep_host_and_path() -> None:
    dataset, web = from_urls(["https://example.org/a/b%20c.gz?sig=1", "http://example.org/d/"])
    assert [file.path for file in web] == ["example.org/a/b c.gz", "example.org/d/index.html"]
    assert (dataset.files, dataset.single_file, dataset.bytes) == (2, False, None)
    assert "sig" not in dataset.source
    assert from_urls(["https://example.org/a"])[0].single_file


@pytest.mark.parametrize(
    ("urls", "code"),
    [
        (["https://example.org/a?x=1", "https://example.org/a?x=2"], "dataset.path_conflict"),
        (["https://example.org/a", "https://example.org/a/b"], "dataset.path_conflict"),
        (["https://example.org/%2e%2e/%2e%2e/etc"], "url.malformed"),
        (["https://example.org/a%2f..%2fb"], "url.malformed"),
        (["https://example.org/a%00b"], "url.malformed"),
        (["https://example.org/a", "http://10.0.0.1/"], "url.blocked_address"),
    ],
)
def test_bad_urls_name_their_place(urls: list[str], code: str) -> None:
    with pytest.raises(UserError) as caught:
        from_urls(urls)
    assert caught.value.code == code
    assert "source" in caught.value.message


def test_near_names() -> None:
    assert "'mnist-dataset'" in near_names("Mnist-datset", ["mnist-dataset", "iris"])
    assert near_names("xyz", ["mnist-dataset"]) == ""


def test_tags_are_bounded() -> None:
    check_tags({"a": None})
    for tags in ({str(n): None for n in range(201)}, {"a": "x" * 5000}):
        with pytest.raises(UserError) as caught:
            check_tags(tags)
        assert caught.value.code == "tags.limit"


def test_uploaded_files_keep_their_places_below_a_base() -> None:
    entries = tuple(
        ManifestEntry(path=path, size=1, sha256="0" * 64) for path in ("out/a/x", "out/a/y")
    )
    dataset, manifest = from_files(DatasetFiles(entries=entries))
    assert [entry.path for entry in manifest.entries] == ["x", "y"]
    dataset, manifest = from_files(DatasetFiles(entries=entries[:1], base="out"))
    assert ([entry.path for entry in manifest.entries], dataset.single_file) == (["a/x"], False)
    with pytest.raises(UserError, match="'out/a/x' is not below 'other'"):
        from_files(DatasetFiles(entries=entries, base="other"))
