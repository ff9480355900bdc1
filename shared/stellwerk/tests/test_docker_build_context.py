"""What can be built from: a folder with a Dockerfile. Everything else is told what to do."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from stellwerk.docker_build_context import DockerBuildContext
from stellwerk.errors import UserError


def archives(folder: Path) -> None:
    with tarfile.open(folder / "context.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("../../Dockerfile")
        member.size = 6
        tar.addfile(member, io.BytesIO(b"FROM a"))
    with zipfile.ZipFile(folder / "context.zip", "w") as packed:
        packed.writestr("Dockerfile", "FROM a")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("context.tar.gz", "mkdir context && tar -xf context.tar.gz -C context"),
        ("context.zip", "or unzip"),
        ("https://example.org/a/context.tar.gz#main", "Fetch and unpack it first"),
        ("git@example.org:a/b.git", "git clone"),
    ],
)
def test_archives_and_addresses_are_not_taken_and_never_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, words: str
) -> None:
    archives(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        DockerBuildContext.from_local_directory(None, path)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.field) == ("env.build_context", "path")
    assert repr(path) in caught.value.message
    assert words in caught.value.message
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_a_folder_without_dockerfile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="has no file 'Dockerfile'"):
        DockerBuildContext.from_local_directory(None, folder)  # type: ignore[arg-type]
