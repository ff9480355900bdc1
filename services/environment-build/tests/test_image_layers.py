"""How an environment's files are parted into layers, and which files two of them share."""

import os
from pathlib import Path

import pytest

from stellwerk_environment_build import image_layers
from stellwerk_environment_build.cache import READY
from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.image_layers import (
    REST,
    Layer,
    layers_of,
    outside_packages,
    with_folders,
)

SITE = "lib/python3.11/site-packages"
PYTHON = "3.11.2"


class Packages:
    """An installer's own cache, and environments that link to it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def unpack(self, name: str, files: dict[str, str], claims: str = "") -> None:
        """A package; ``claims`` are further lines of its RECORD, which each environment has."""
        folder = self.root / "unpacked" / name
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        info = folder / f"{name}-1.dist-info"
        info.mkdir(parents=True)
        lines = [f"{path},,\n" for path in files]
        (info / "RECORD").write_text("".join([*lines, f"{info.name}/RECORD,,\n", claims]))

    def install(self, into: str, *names: str) -> Path:
        """An environment of them, compiled."""
        target = self.root / into
        for name in names:
            folder = self.root / "unpacked" / name
            for path in (each for each in folder.rglob("*") if each.is_file()):
                place = target / SITE / path.relative_to(folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                if path.name == "RECORD":
                    place.write_bytes(path.read_bytes())
                else:
                    place.unlink(missing_ok=True)
                    os.link(path, place)
                if path.suffix == ".py":
                    compiled = place.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc"
                    compiled.parent.mkdir(exist_ok=True)
                    compiled.write_bytes(os.urandom(8))
        (target / "bin").mkdir(parents=True)
        (target / "bin/python").symlink_to("/usr/bin/python3")
        (target / READY).write_text("what the builder knows")
        return target


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    made = Packages(tmp_path)
    made.unpack("big", {"big/a.py": "x" * 1000, "ns/one.py": "1"})
    made.unpack("small", {"small.py": "s", "ns/two.py": "2"})
    return made


def titled(layers: list[Layer]) -> dict[str, Layer]:
    return {each.title: each for each in layers}


def test_the_layers_are_the_environment_and_each_file_is_in_one(packages: Packages) -> None:
    folder = packages.install("env", "big", "small")
    layers = layers_of(folder, PYTHON)
    assert [each.title for each in layers] == ["big-1", "small-1", REST]
    together = [path for each in layers for path in each.paths]
    files = {str(each.relative_to(folder)) for each in folder.rglob("*") if not each.is_dir()}
    assert sorted(together) == sorted(files - {READY})
    assert f"{SITE}/big/__pycache__/a.cpython-311.pyc" in layers[0].paths
    assert layers[2].paths == ("bin/python",)


def test_a_package_is_known_in_another_environment_though_compiled_anew(
    packages: Packages,
) -> None:
    one = titled(layers_of(packages.install("one", "big"), PYTHON))
    two = titled(layers_of(packages.install("two", "small", "big"), PYTHON))
    assert one["big-1"] == two["big-1"]
    other = titled(layers_of(packages.root / "two", "3.11.3"))
    assert other["big-1"].key != two["big-1"].key


@pytest.mark.parametrize("what", ["file", "linked", "mode", "record", "more", "compiled"])
def test_what_is_not_the_same_has_another_key(packages: Packages, what: str) -> None:
    before = titled(layers_of(packages.install("one", "big"), PYTHON))["big-1"]
    folder = packages.install("two", "big")
    path = folder / SITE / "big/a.py"
    record = folder / SITE / "big-1.dist-info/RECORD"
    if what == "file":
        path.unlink()
        path.write_text("y" * 1000)
    elif what == "linked":  # as long and as old, from another unpacked package
        other = folder.with_name("other.py")
        other.write_text("y" * 1000)
        os.utime(other, ns=(0, path.stat().st_mtime_ns))
        path.unlink()
        os.link(other, path)
    elif what == "compiled":
        (path.parent / "__pycache__/a.cpython-311.pyc").unlink()
    elif what == "mode":
        path.chmod(0o755)
    elif what == "record":
        record.write_text(record.read_text() + "big/none,,\n")
    else:
        (folder / SITE / "big/b.py").write_text("b")
        record.write_text(record.read_text().replace("ns/one.py", "big/b.py"))
    assert titled(layers_of(folder, PYTHON))["big-1"].key != before.key


def test_what_two_packages_claim_is_nobodys(packages: Packages) -> None:
    """One that says it has the other's modules gets none of them, nor the name they have."""
    packages.unpack(
        "thief", {"thief.py": "t"}, f"big/a.py,,\n../../../bin/python,,\n{'../' * 9}etc/passwd,,\n"
    )
    layers = titled(layers_of(packages.install("env", "big", "thief"), PYTHON))
    assert layers[REST].paths == (
        f"{SITE}/big/__pycache__/a.cpython-311.pyc",
        f"{SITE}/big/a.py",
    )
    assert "bin/python" in layers["thief-1"].paths, "what nobody else claims is its own, as it lies"
    assert not [path for path in layers["thief-1"].paths if "passwd" in path]


@pytest.mark.parametrize("record", ["\0,,\n", '"' + "x" * 200_000 + '",,\n', ""])
def test_a_record_that_nobody_can_read_claims_nothing(packages: Packages, record: str) -> None:
    folder = packages.install("env", "small")
    (folder / SITE / "small-1.dist-info/RECORD").write_text(record)
    layers = layers_of(folder, PYTHON)
    assert [each.title for each in layers] == [REST]
    assert f"{SITE}/small.py" in layers[0].paths


def test_a_record_inside_of_a_package_is_a_file(packages: Packages) -> None:
    packages.unpack("vendor", {"vendor/small-1.dist-info/RECORD": "small.py,,\n"})
    layers = titled(layers_of(packages.install("env", "vendor", "small"), PYTHON))
    assert f"{SITE}/small.py" in layers["small-1"].paths


def test_the_smallest_share_a_layer(packages: Packages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_layers, "MOST_PACKAGES", 1)
    packages.unpack("tiny", {"tiny.py": ""})
    layers = layers_of(packages.install("env", "big", "small", "tiny"), PYTHON)
    assert [each.title for each in layers] == ["big-1", "small packages", REST]
    assert {f"{SITE}/small.py", f"{SITE}/tiny.py"} < set(layers[1].paths)


@pytest.mark.parametrize("path", ["big/.wh.b.py", ".wh..wh..opq", ".wh.big/c.py"])
@pytest.mark.parametrize("conda", [False, True])
def test_a_name_that_takes_another_file_away_is_refused(
    packages: Packages, path: str, conda: bool
) -> None:
    packages.unpack("bad", {path: "", "big/fine.wh.py": "", "big/.whisk": ""})
    folder = packages.install("env", "bad")
    if conda:
        (folder / "conda-meta").mkdir()
    with pytest.raises(BuildFailedError) as caught:
        layers_of(folder, PYTHON)
    failure = caught.value.failure
    assert (failure.reason, failure.code) == ("your-spec", "env.file_name")
    assert repr(f"{SITE}/{path}") in failure.message


def test_a_file_of_its_own_is_read_piece_by_piece(
    packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = packages.install("one", "big")
    other = folder / SITE / "big/a.py"
    other.unlink()
    other.write_text("x" * 1000)
    before = layers_of(folder, PYTHON)

    def whole(path: Path) -> bytes:
        raise AssertionError(f"{path} may be larger than memory")

    monkeypatch.setattr(Path, "read_bytes", whole)
    assert layers_of(folder, PYTHON) == before


def test_what_an_interpreter_needs_to_start(packages: Packages) -> None:
    assert outside_packages(packages.install("env", "big")) == ["bin", "bin/python", READY]


def test_folders_come_before_what_is_in_them() -> None:
    assert with_folders(["a/b/c", "a/d"]) == ["a", "a/b", "a/b/c", "a/d"]
