"""What belongs to a source snapshot, what stays out, what is refused."""

import os
import socket
import sys
from pathlib import Path

import pytest
from scripted_platform import Platform

from stellwerk import UserError, Workspace
from stellwerk.localfiles import hashed, manifest_of
from stellwerk.snapshot import MAX_BYTES, MAX_FILES, collect, upload_snapshot


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def names(root: Path) -> list[str]:
    return [each.name for each in collect(root)]


def test_built_in_excludes(tmp_path: Path) -> None:
    out = [
        ".azureml/config.json", ".git/HEAD", ".ipynb_checkpoints/a", ".stellwerk/config.json",
        ".venv/bin/python", "__pycache__/a.pyc", "azureml-logs/x", "azureml-setup/x", "outputs/m",
        "pkg/__pycache__/b.pyc",
    ]  # fmt: skip
    assert names(tree(tmp_path / "s", "train.py", "pkg/a.py", *out)) == ["pkg/a.py", "train.py"]


def test_a_platforms_data_and_virtual_environments_of_any_name(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "s", "a.py", "data/supervisor.lock", "data/secrets/key", "mine/pyvenv.cfg"
    )
    (root / "mine" / "python").symlink_to(sys.executable)
    assert names(root) == ["a.py"]
    with pytest.raises(UserError, match="is the data folder of a platform"):
        names(root / "data")


def test_gitignore_and_amlignore_over_it(tmp_path: Path) -> None:
    root = tree(tmp_path / "s", "a.py", "b.log", "keep.log", "data/x.bin", "deep/data/y.bin")
    (root / ".gitignore").write_text("*.log\n!keep.log\n/data/\n# comment\n")
    assert names(root) == [".gitignore", "a.py", "deep/data/y.bin", "keep.log"]
    (root / ".amlignore").write_text("data/\n")
    assert names(root) == [".amlignore", ".gitignore", "a.py", "b.log", "keep.log"]


def test_link_within_is_followed(tmp_path: Path) -> None:
    root = tree(tmp_path / "s", "real/a.py")
    (root / "linked").symlink_to("real")
    (root / "b.py").symlink_to("real/a.py")
    assert names(root) == ["b.py", "linked/a.py", "real/a.py"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("../outside", "link out of the source folder"),
        ("nowhere", "leads nowhere"),
        (".", "contains it"),
    ],
)
def test_bad_links(tmp_path: Path, target: str, said: str) -> None:
    tree(tmp_path, "outside")
    root = tree(tmp_path / "s", "a.py")
    (root / "bad").symlink_to(target)
    with pytest.raises(UserError, match=said) as caught:
        collect(root)
    assert "'bad'" in caught.value.message
    assert caught.value.code == "source.link"


def test_ignored_link_is_no_matter(tmp_path: Path) -> None:
    root = tree(tmp_path / "s", "a.py")
    (root / "bad").symlink_to("/etc")
    (root / ".amlignore").write_text("bad\n")
    assert names(root) == [".amlignore", "a.py"]


def test_socket_and_pipe_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "s", "a.py")
    os.mkfifo(root / "pipe")
    with pytest.raises(UserError, match="'pipe' is a named pipe"):
        collect(root)
    (root / "pipe").unlink()
    monkeypatch.chdir(root)  # a socket's path has little room
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
        with pytest.raises(UserError, match="'sock' is a socket"):
            collect(root)


def test_too_many_files(tmp_path: Path) -> None:
    root = tree(tmp_path / "s", "train.py")
    (root / "many").mkdir()
    for index in range(MAX_FILES - 1):
        (root / "many" / f"{index}").touch()
    assert len(collect(root)) == MAX_FILES
    (root / "one").touch()
    with pytest.raises(UserError) as caught:
        collect(root)
    for part in ("2001 files", "limit", "2000 files", "many/ 1999 files", ".amlignore", "dataset"):
        assert part in caught.value.message


def test_too_large(tmp_path: Path) -> None:
    root = tree(tmp_path / "s", "train.py")
    with (root / "big.bin").open("wb") as file:
        file.truncate(MAX_BYTES + 1_000_000)
    with pytest.raises(
        UserError, match=r"301\.0 MB; .* is 300\.0 MB\. Biggest: big\.bin 301\.0 MB"
    ):
        collect(root)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        collect(tmp_path / "nowhere")


def test_odd_names_are_literal_and_bad_ones_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "s", "-rf", "$(x)", "con")
    assert [each.entry.path for each in hashed(collect(root))] == ["$(x)", "-rf", "con"]
    (root / "a\nb").touch()
    with pytest.raises(UserError, match=r"a\\nb.*Rename or exclude"):
        hashed(collect(root))
    (root / "a\nb").unlink()
    (root / os.fsdecode(b"\xff")).touch()
    with pytest.raises(UserError, match="unicode string"):
        hashed(collect(root))


def test_names_that_differ_in_form_only(tmp_path: Path) -> None:
    root = tree(tmp_path / "s", "e\u0301.py", "\u00e9.py")
    with pytest.raises(UserError, match="stands twice"):
        manifest_of(hashed(collect(root)))


def test_executable_bit_is_kept(tmp_path: Path) -> None:
    root = tree(tmp_path / "s", "run.sh", "a.py")
    (root / "run.sh").chmod(0o755)
    assert [each.entry.executable for each in hashed(collect(root))] == [False, True]


def test_only_missing_blobs_are_uploaded(
    tmp_path: Path, platform: Platform, workspace: Workspace
) -> None:
    root = tree(tmp_path / "s", "a.py", "b.py", "c/a.py")
    (root / "c" / "a.py").write_text("a.py")  # the same content twice
    first = upload_snapshot(workspace.client, root)
    assert (first.files, len(platform.puts)) == (3, 2)
    (root / "b.py").write_text("changed")
    second = upload_snapshot(workspace.client, root)
    assert len(platform.puts) == 3
    assert first.digest != second.digest
