"""Manifests: canonical, unambiguous, and no path that could leave its folder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.manifest import Manifest, ManifestEntry, safe_path

DIGEST = "0" * 64


def entry(path: str, size: int = 1) -> ManifestEntry:
    return ManifestEntry(path=path, size=size, sha256=DIGEST)


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/", "a\\b", "C:\\x", "a\x00b", "a\nb", "x" * 256, "/".join("d" * 33)],
)  # fmt: skip
def test_unsafe_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        safe_path(path)


@given(st.permutations([entry("a"), entry("b/c"), entry("b/d", 7), entry("ü")]))
def test_digest_does_not_depend_on_order(entries: list[ManifestEntry]) -> None:
    assert (
        Manifest(entries=tuple(entries)).digest()
        == Manifest(entries=tuple(sorted(entries, key=lambda e: e.path))).digest()
    )


def test_ambiguous_manifests_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Manifest(entries=(entry("e\u0301"), entry("\u00e9")))  # the same name in NFD and NFC
    with pytest.raises(ValueError, match="both a file and a folder"):
        Manifest(entries=(entry("a"), entry("a/b")))


def test_under_takes_a_file_or_a_folder() -> None:
    manifest = Manifest(
        entries=(entry("outputs/model"), entry("outputs/model2/a"), entry("outputs/model2/b/c"))
    )
    assert [e.path for e in manifest.under("outputs/model").entries] == ["outputs/model"]
    assert [e.path for e in manifest.under("outputs/model2/").entries] == [
        "outputs/model2/a",
        "outputs/model2/b/c",
    ]
    assert manifest.size == 3
