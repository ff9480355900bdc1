"""A layer's bytes: the same for the same files, nothing of this machine in them."""

import hashlib
import io
import os
import tarfile
import threading
from pathlib import Path

import pytest

from stellwerk_environment_build import known_layers
from stellwerk_environment_build.cache import write_fresh
from stellwerk_environment_build.known_layers import Blob, KnownLayers
from stellwerk_environment_build.layer_archive import LayerArchive, StoppedError

PATHS = ("bin/tool", "lib/a.py", "lib/empty", f"lib/{'long' * 40}.py", "python")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "one")


def written(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "lib/empty").mkdir(parents=True)
    (folder / "bin/tool").write_text("#!python")
    (folder / "bin/tool").chmod(0o4750)
    (folder / "lib/a.py").write_bytes(b"a" * (3 << 20))
    (folder / PATHS[3]).write_text("long")
    (folder / "python").symlink_to("/usr/bin/python3")
    return folder


def test_the_same_files_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "two")
    (other / "lib/a.py").chmod(0o600)
    os.utime(other / "lib/a.py", (1, 1))
    one, two = LayerArchive(folder, PATHS), LayerArchive(other, PATHS)
    data = b"".join(one)
    assert data == b"".join(two)
    assert len(data) == len(one)
    assert one.digest == two.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_what_is_in_it(folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(b"".join(LayerArchive(folder, PATHS)))) as tar:
        found = {each.name: each for each in tar.getmembers()}
        text = tar.extractfile("opt/environment/lib/a.py")
        assert text is not None
        assert text.read() == (folder / "lib/a.py").read_bytes()
    folders = ["opt", "opt/environment", "opt/environment/bin", "opt/environment/lib"]
    assert list(found) == sorted([*folders, *(f"opt/environment/{each}" for each in PATHS)])
    assert {(each.uid, each.gid, each.uname, each.mtime) for each in found.values()} == {
        (0, 0, "root", 0)
    }
    assert oct(found["opt/environment/bin/tool"].mode) == "0o755", "no bit that makes it root's"
    assert oct(found["opt/environment/lib/a.py"].mode) == "0o644"
    assert found["opt/environment/python"].linkname == "/usr/bin/python3"


def test_content_may_be_other_and_a_file_may_have_a_time(folder: Path) -> None:
    archive = LayerArchive(
        folder, PATHS, content=lambda _: b"#!elsewhere/python", times={"bin/tool": 77}
    )
    with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as tar:
        member = tar.getmember("opt/environment/bin/tool")
        times = {each.name: each.mtime for each in tar.getmembers() if each.mtime}
        assert times == {member.name: 77}
        text = tar.extractfile(member)
        assert text is not None
        assert text.read() == b"#!elsewhere/python"


def test_it_ends_when_it_is_to_end(folder: Path) -> None:
    stop = threading.Event()
    chunks = iter(LayerArchive(folder, PATHS, stop=stop))
    next(chunks)
    stop.set()
    with pytest.raises(StoppedError):
        next(chunks)


def test_a_file_that_changes_under_it_is_refused(folder: Path) -> None:
    """Also one that becomes a link to something else."""
    shrunk, swapped = (LayerArchive(folder, ("lib/a.py",)) for _ in range(2))
    (folder / "lib/a.py").write_text("short")
    with pytest.raises(OSError, match="smaller"):
        b"".join(shrunk)
    (folder / "lib/a.py").unlink()
    (folder / "lib/a.py").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        b"".join(swapped)


def test_known_layers(tmp_path: Path) -> None:
    known = KnownLayers(tmp_path / "layers")
    one, two = (Blob(digest=f"sha256:{digit * 64}", size=1) for digit in "12")
    assert known.get("a") is None
    known.forget_all_but({})
    known.put("a", one)
    known.put("b", two)
    known.put(None, two)
    (tmp_path / "layers/c").write_text("cut off when a machine went d")
    assert (known.get("a"), known.get("b"), known.get("c"), known.get(None)) == (
        one,
        two,
        None,
        None,
    )
    known.forget_all_but({two.digest})
    assert (known.get("a"), known.get("b")) == (None, two)
    assert [each.name for each in (tmp_path / "layers").iterdir()] == ["b"]
    known.forget(["b", None, "none"])
    assert known.get("b") is None


def test_what_is_being_written_stays_while_others_are_forgotten(tmp_path: Path) -> None:
    """A prune may come between the file's writing and its name; a crash leaves it for long."""
    known, blob = KnownLayers(tmp_path), Blob(digest=f"sha256:{'1' * 64}", size=1)

    def interrupted(part: Path, text: str) -> None:
        write_fresh(part, text)
        old = part.with_name(f"{part.name}.old")
        old.write_text(text)
        os.utime(old, (1, 1))
        known.forget_all_but({})
        assert not old.exists()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_layers, "write_fresh", interrupted)
        known.put("a", blob)
    assert known.get("a") == blob
