"""How an environment with conda packages is parted into layers, and which two of them share."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from stellwerk_environment_build.conda_prefix import moved
from stellwerk_environment_build.image_layers import REST, Layer, layers_of

SITE = "lib/python3.11/site-packages"
PLACE = "/opt/environment"
CHECKED, UNCHECKED = 3495, 1
TOOL = {f"{SITE}/tool.py": b"tool", "bin/says": b"#!%s/bin/python", "lib/t.so": b"\0%s/lib\0\0"}
NAMED = {"bin/says": "text", "lib/t.so": "binary"}


def link(folder: Path, title: str, files: Mapping[str, bytes], *more: str) -> None:
    """A package as it lies in ``folder`` when it is linked; ``%s`` is the folder."""
    entries: list[dict[str, str]] = [{"_path": path} for path in more]
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content.replace(b"%s", str(folder).encode()))
        named = {"prefix_placeholder": "/p", "file_mode": NAMED[path]} if path in NAMED else {}
        entries.append({"_path": path, **named})
    meta = folder / "conda-meta" / f"{title}.json"
    meta.parent.mkdir(exist_ok=True)
    meta.write_text(json.dumps({"paths_data": {"paths": entries}}))


def compiled(folder: Path, source: str, content: bytes = b"code", *header: int) -> Path:
    """The compiled module of ``source``, by default one that compares nothing."""
    above, name = (folder / source).parent, Path(source).stem
    path = above / "__pycache__" / f"{name}.cpython-311.pyc"
    path.parent.mkdir(exist_ok=True)
    words = [each.to_bytes(4, "little") for each in header or (CHECKED, UNCHECKED, 7, 7)]
    path.write_bytes(b"".join(words) + content)
    return path


def environment(folder: Path, *more: str) -> Path:
    """One with the package ``tool``, an entry of what nobody claims, and further packages."""
    folder.mkdir()
    link(folder, "tool-1.0-0", TOOL)
    compiled(folder, f"{SITE}/tool.py")
    (folder / "requirements.lock").write_text(str(folder))
    for name in more:
        link(folder, f"{name}-1.0-0", {f"{SITE}/{name}.py": name.encode() * 100})
    return folder


def layers(folder: Path) -> dict[str, Layer]:
    return {each.title: each for each in layers_of(folder, "3.11.2", moved(folder, PLACE))}


def test_the_layers_are_the_environment_a_package_each(tmp_path: Path) -> None:
    folder = environment(tmp_path / "one", "large")
    found = layers(folder)
    assert [*found] == ["large-1.0-0", "tool-1.0-0", REST]
    together = [path for each in found.values() for path in each.paths]
    files = [str(each.relative_to(folder)) for each in folder.rglob("*") if not each.is_dir()]
    assert sorted(together) == sorted(files)
    assert found["tool-1.0-0"].paths == tuple(
        sorted([*TOOL, f"{SITE}/__pycache__/tool.cpython-311.pyc", "conda-meta/tool-1.0-0.json"])
    )
    assert found[REST].paths == ("requirements.lock",)


def test_a_package_is_known_at_another_place(tmp_path: Path) -> None:
    one, two = environment(tmp_path / "one"), environment(tmp_path / "two", "large")
    assert (one / "bin/says").read_bytes() != (two / "bin/says").read_bytes()
    assert layers(one)["tool-1.0-0"] == layers(two)["tool-1.0-0"]
    assert layers(one)["tool-1.0-0"].key is not None


def changed(path: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / path).write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        changed(f"{SITE}/tool.py", b"evil"),
        changed("bin/says", b"#!/evil"),
        lambda folder: compiled(folder, f"{SITE}/tool.py", b"evil"),
        lambda folder: (folder / f"{SITE}/tool.py").chmod(0o755),
        lambda folder: link(folder, "tool-1.0-0", {**TOOL, "lib/more": b""}),
        lambda folder: (
            os.link(folder / "lib/t.so", folder / "conda-meta/tool-1.0-0.json.new")
            or changed("lib/t.so", b"\0/evil")(folder)
        ),
    ],
)
def test_what_is_not_the_same_has_another_key(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    """Whoever changed it: an interpreter of a channel could write to its own environment."""
    before = layers(environment(tmp_path / "one"))["tool-1.0-0"].key
    folder = environment(tmp_path / "two")
    ages = {path: path.stat() for path in folder.rglob("*")}
    change(folder)
    for path, age in ages.items():
        os.utime(path, ns=(age.st_atime_ns, age.st_mtime_ns))
    assert layers(folder)["tool-1.0-0"].key != before


def test_what_two_claim_is_nobodys_and_a_pip_package_is_one(tmp_path: Path) -> None:
    """A conda package knows its files better than the RECORD that it brings along."""
    folder = environment(tmp_path / "one")
    info = {f"{SITE}/tool-1.dist-info/RECORD": b"tool.py,,\n../../../bin/says,,\n"}
    link(folder, "tool-1.0-0", {**TOOL, **info}, "lib/both", "lib/none")
    link(folder, "other-1.0-0", {"lib/both": b""})
    assert "bin/says" in layers(folder)["tool-1.0-0"].paths
    for name, claims in (("alpha", b"alpha.py,,\n"), ("thief", b"tool.py,,\n")):
        (folder / SITE / f"{name}.py").write_text(name)
        (folder / SITE / f"{name}-1.dist-info").mkdir()
        (folder / SITE / f"{name}-1.dist-info/RECORD").write_bytes(claims)
    found = layers(folder)
    assert found["alpha-1"].paths == (f"{SITE}/alpha.py",)
    compiled_too = f"{SITE}/__pycache__/tool.cpython-311.pyc"
    assert {"lib/both", f"{SITE}/tool.py", compiled_too} < set(found[REST].paths)
    assert "lib/none" not in [path for each in found.values() for path in each.paths]


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ((CHECKED, 0, 77, 4), True),  # as packages have it
        ((3379, 77, 4), True),  # of a Python before 3.7
        ((CHECKED, 0, 78, 4), False),  # old already
        ((CHECKED, 1, 77, 4), False),  # compared by nothing
        ((CHECKED, 3, 77, 4), False),  # compared by hash
    ],
)
def test_a_source_whose_compiled_module_compares_its_time_keeps_it(
    tmp_path: Path, header: tuple[int, ...], kept: bool
) -> None:
    one, two = (environment(tmp_path / name) for name in ("one", "two"))
    source = f"{SITE}/tool.py"
    for folder in (one, two):
        compiled(folder, source, b"code", *header)
        os.utime(folder / source, (77, 77))
    found = layers(one)["tool-1.0-0"]
    assert found.times == ({source: 77} if kept else {})
    os.utime(two / source, (76, 76))
    assert (layers(two)["tool-1.0-0"].key == found.key) is not kept


@pytest.mark.parametrize(
    "text", ["", "[]", '{"paths_data": 1}', '{"paths_data": {"paths": [{}]}}', "[" * 10**5]
)
def test_a_list_that_is_none_claims_nothing(tmp_path: Path, text: str) -> None:
    folder = environment(tmp_path / "one")
    (folder / "conda-meta/tool-1.0-0.json").write_text(text)
    assert [*layers(folder)] == [REST]


def test_a_list_elsewhere_is_not_read(tmp_path: Path) -> None:
    folder = environment(tmp_path / "one")
    meta = folder / "conda-meta/tool-1.0-0.json"
    meta.rename(tmp_path / "elsewhere.json")
    meta.symlink_to(tmp_path / "elsewhere.json")
    os.mkfifo(folder / "conda-meta/pipe.json")
    assert [*layers(folder)] == [REST]
