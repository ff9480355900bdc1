"""What can be built from: a folder with a Dockerfile, or an archive of one that is the same then."""

import io
import os
import stat
import struct
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted_platform import Platform

from stellwerk import Workspace, context_archive, snapshot
from stellwerk.docker_build_context import DockerBuildContext
from stellwerk.environment_spec import from_dict
from stellwerk.errors import UserError
from stellwerk.sizes import size_text

TARS = {".tar": "", ".tar.gz": "-z", ".TGZ": "-z", ".tar.bz2": "-j", ".tar.xz": "-J"}
Entry = str | tarfile.TarInfo


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files lie."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def context(root: Path) -> Path:
    """One with all that counts: modes, links, what is ignored, names, nothing in a folder."""
    for name, text in {
        "Dockerfile": "FROM a\nCOPY . /x\n", ".dockerignore": "*.log\n", ".amlignore": "*.tmp\n",
        "a/b.txt": "b", "a/deep/ä ö.txt": "ä", "run.sh": "#!/bin/sh\n", "left.tmp": "out",
        "empty.txt": "", "__pycache__/x.pyc": "out", "x.log": "in, for the builder sorts it out",
    }.items():  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "run.sh").chmod(0o755)
    (root / "nothing").mkdir()
    (root / "link.txt").symlink_to("a/deep/../b.txt")
    (root / "a" / "folder").symlink_to("deep")
    os.link(root / "run.sh", root / "twin.sh")
    return root


def zipped(folder: Path, archive: Path) -> None:
    """As ``zip -y`` writes it."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                packed.writestr(zip_entry(name, stat.S_IFLNK | 0o777), str(path.readlink()))
            else:
                packed.write(path, name)


def zip_entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


@pytest.mark.parametrize("ending", [*TARS, ".zip"])
def test_an_archive_is_the_same_as_its_folder(
    tmp_path: Path, scratch: Path, workspace: Workspace, platform: Platform, ending: str
) -> None:
    folder, archive = context(tmp_path / "docker"), tmp_path / f"x{ending}"
    if ending == ".zip":
        zipped(folder, archive)
    else:
        flags = filter(None, [TARS[ending]])
        subprocess.run(["tar", *flags, "-cf", archive, "-C", folder, "."], check=True)
    wanted = DockerBuildContext.from_local_directory(workspace, str(folder))
    uploads = len(platform.puts)
    found = DockerBuildContext.from_local_directory(workspace, str(archive))
    assert found == wanted
    assert from_dict({"build_context": found.as_defined().model_dump()}) == from_dict(
        {"build_context": wanted.as_defined().model_dump()}
    )
    assert (uploads, len(platform.puts)) == (8, 8), "nothing of it is new to the store"
    assert list(scratch.iterdir()) == []


def test_what_an_archive_ignores_is_no_file_of_the_context(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "MAX_FILES", 20)
    folder = tmp_path / "docker"
    (folder / "many").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM a")
    for number in range(20):
        (folder / "many" / str(number)).touch()
    archive = tmp_path / "x.tar"
    subprocess.run(["tar", "-cf", archive, "-C", folder, "."], check=True)
    with pytest.raises(UserError, match=r"x\.tar' holds 21 files; .* Biggest: many/"):
        DockerBuildContext.from_local_directory(workspace, str(archive))
    (folder / ".amlignore").write_text("many/\n")
    subprocess.run(["tar", "-cf", archive, "-C", folder, "."], check=True)
    DockerBuildContext.from_local_directory(workspace, str(archive))


def tar(*entries: Entry) -> Callable[[Path], None]:
    """A Dockerfile and such entries."""

    def write(path: Path) -> None:
        with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as out:
            for entry in ("Dockerfile", *entries):
                member = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
                data = b"FROM a" if member.type == tarfile.REGTYPE else b""
                member.size = len(data)
                out.addfile(member, io.BytesIO(data))

    return write


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def symlink(name: str, target: str) -> tarfile.TarInfo:
    return special(name, tarfile.SYMTYPE, target)


def zip_of(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            for name, data in (("Dockerfile", b"FROM a"), *entries):
                out.writestr(name, data)

    return write


def marked(offset: int, value: int) -> Callable[[Path], None]:
    """A zip whose entry has such a field in both of its headers."""

    def write(path: Path) -> None:
        zip_of()(path)
        data = bytearray(path.read_bytes())
        for magic, at in ((b"PK\x03\x04", offset), (b"PK\x01\x02", offset + 2)):
            struct.pack_into("<H", data, data.index(magic) + at, value)
        path.write_bytes(data)

    return write


def sparse(path: Path) -> None:
    """A terabyte of nothing."""
    folder = path.with_name("holes")
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM a")
    with (folder / "big").open("wb") as file:
        file.truncate(1 << 40)
    subprocess.run(["tar", "-S", "-czf", path, "-C", folder, "Dockerfile", "big"], check=True)


NAME = "has a name that is not taken"
OUT = "out of the archive"
NOWHERE = "leads nowhere"
NO_FILE = "which is no file before it"
TWICE = "is there twice, or as a file and a folder"


@pytest.mark.parametrize(
    ("file", "write", "entry", "words"),
    [
        ("x.tgz", tar("../x"), "'../x'", NAME),
        ("x.tgz", tar("/x"), "'/x'", NAME),
        ("x.tgz", tar("a/../../x"), "'a/../../x'", NAME),
        ("x.tgz", tar("a\nb"), r"'a\nb'", NAME),
        ("x.tgz", tar("a\\b"), r"'a\\b'", NAME),
        ("x.tgz", tar("a\udcff"), r"'a\\udcff'", "not UTF-8"),
        ("x.tgz", tar("/".join("d" * 40)), "'d/d/", "too deep"),
        ("x.tgz", tar(symlink("l", "/etc/passwd")), "'l'", OUT),
        ("x.tgz", tar(symlink("l", "../..")), "'l'", OUT),
        ("x.tgz", tar(symlink("l", "nowhere")), "'l'", NOWHERE),
        ("x.tgz", tar(symlink("l", "l")), "'l'", NOWHERE),
        ("x.tgz", tar(symlink("../l", "Dockerfile")), "'../l'", NAME),
        ("x.tgz", tar("p/q/f", symlink("p/q/a", "../.."), symlink("d", "p/q/a/..")), "'d'", OUT),
        ("x.tgz", tar(symlink("d", ".."), "d/x"), "'d'", TWICE),
        ("x.tgz", tar(symlink("d", ".."), symlink("d/x", "y")), "'d'", TWICE),
        ("x.tgz", tar(symlink("d", "."), symlink("d", "..")), "'d'", TWICE),
        ("x.tgz", tar(special("h", tarfile.LNKTYPE, "../../etc/passwd")), "'h'", NO_FILE),
        ("x.tgz", tar(special("h", tarfile.LNKTYPE, "/etc/passwd")), "'h'", NO_FILE),
        ("x.tgz", tar(special("h", tarfile.LNKTYPE, "x")), "'h'", NO_FILE),
        ("x.tgz", tar(special("c", tarfile.CHRTYPE)), "'c'", "is a device"),
        ("x.tgz", tar(special("b", tarfile.BLKTYPE)), "'b'", "is a device"),
        ("x.tgz", tar(special("p", tarfile.FIFOTYPE)), "'p'", "is a named pipe"),
        ("x.tgz", tar("Dockerfile"), "'Dockerfile'", TWICE),
        ("x.tgz", tar("Dockerfile/x"), "'Dockerfile/x'", TWICE),
        ("x.tgz", tar("a/b", "a"), "'a'", TWICE),
        ("x.tgz", sparse, "'big'", "makes it unpack to more than 300.0 MB"),
        ("x.zip", zip_of(("../x", b"")), "'../x'", NAME),
        ("x.zip", zip_of(("/x", b"")), "'/x'", NAME),
        ("x.zip", zip_of(("a\\b", b"")), r"'a\\b'", NAME),
        ("x.zip", zip_of((zip_entry("l", stat.S_IFLNK | 0o777), b"/etc/passwd")), "'l'", OUT),
        ("x.zip", zip_of((zip_entry("l", stat.S_IFLNK | 0o777), b"x" * 9999)), "'l'", "4096 bytes"),
        ("x.zip", zip_of((zip_entry("p", stat.S_IFIFO | 0o644), b"")), "'p'", "neither a file"),
        ("x.zip", zip_of(("a", b""), ("a", b"")), "'a'", TWICE),
        ("x.zip", marked(6, 1), "'Dockerfile'", "is encrypted; pack it without a password"),
        ("x.zip", marked(8, 99), "", "may be damaged"),
        ("x.zip", lambda path: path.write_bytes(b"PK\3\4 no zip"), "", "may be damaged"),
        ("x.tgz", lambda path: path.write_bytes(b"no tar" * 200), "", "may be damaged"),
        ("x.tgz", lambda path: path.touch(), "", "may be damaged"),
        ("x.rar", lambda path: path.touch(), "", "is neither a folder nor an archive (.tar, "),
        ("Dockerfile", lambda path: path.touch(), "", "is neither a folder nor an archive"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_and_broken_archives(
    tmp_path: Path, scratch: Path, workspace: Workspace, platform: Platform,
    file: str, write: Callable[[Path], object], entry: str, words: str,
) -> None:  # fmt: skip
    archive = tmp_path / file
    write(archive)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        DockerBuildContext.from_local_directory(workspace, str(archive))
    assert (caught.value.code, caught.value.field) == ("env.build_context", "path")
    assert caught.value.message.startswith(f"path: {file!r}: {entry}".rstrip())
    assert words in caught.value.message
    assert sorted(tmp_path.rglob("*")) == before, "nothing stays, and nothing lies elsewhere"
    assert platform.puts == []


@pytest.mark.parametrize("file", ["x.tar.gz", "x.zip"])
def test_bombs(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Ten million zeros in ten thousand bytes, in one entry or as many folders."""
    limit = 100_000
    monkeypatch.setattr(context_archive, "MAX_BYTES", limit)
    monkeypatch.setattr(context_archive, "MAX_ENTRIES", 50)
    big, many = (tmp_path / each for each in ("big", "many"))
    for folder in (big, many):
        folder.mkdir()
        (folder / "Dockerfile").write_text("FROM a")
    (big / "zeros").write_bytes(bytes(10_000_000))
    for number in range(60):
        (many / str(number)).mkdir()
    for folder, words in (
        (big, f"to more than {size_text(limit)}, the limit of a build context"),
        (many, "is one of more than 50 entries, the limit"),
    ):
        archive = tmp_path / file
        if file == "x.zip":
            zipped(folder, archive)
        else:
            subprocess.run(["tar", "-czf", archive, "-C", folder, "."], check=True)
        assert archive.stat().st_size < 30_000
        with pytest.raises(UserError) as caught:
            DockerBuildContext.from_local_directory(workspace, str(archive))
        assert caught.value.message.startswith(f"path: {file!r}: ")
        assert words in caught.value.message


@pytest.mark.parametrize("file", ["x.tar", "x.tar.gz", "x.zip"])
def test_an_archive_that_is_cut_off_anywhere(
    tmp_path: Path, workspace: Workspace, file: str
) -> None:
    """Also where one entry ends and the next begins, which readers of tar take for its end."""
    folder, whole, cut = context(tmp_path / "docker"), tmp_path / file, tmp_path / f"cut-{file}"
    if file == "x.zip":
        zipped(folder, whole)
    else:
        flags = [] if file == "x.tar" else ["-z"]
        subprocess.run(["tar", *flags, "-b1", "-cf", whole, "-C", folder, "."], check=True)
    data = whole.read_bytes()
    # Of the two empty blocks at the end of a tar one is enough.
    ends = range(256, len(data) - 512, 256) if file == "x.tar" else range(1, len(data) - 1, 37)
    for end in ends:
        cut.write_bytes(data[:end])
        with pytest.raises(UserError) as caught:
            DockerBuildContext.from_local_directory(workspace, str(cut))
        assert caught.value.code == "env.build_context", end
        assert "damaged" in caught.value.message


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("https://example.org/a/context.tar.gz#main", "Fetch it first"),
        ("git@example.org:a/b.git", "git clone"),
    ],
)
def test_addresses_are_not_taken(workspace: Workspace, path: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        DockerBuildContext.from_local_directory(workspace, path)
    assert (caught.value.code, caught.value.field) == ("env.build_context", "path")
    assert repr(path) in caught.value.message
    assert words in caught.value.message


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_a_folder_without_dockerfile(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"has no file 'Dockerfile'$"):
        DockerBuildContext.from_local_directory(workspace, folder)


def test_an_archive_with_the_folder_itself_in_it(tmp_path: Path, workspace: Workspace) -> None:
    context(tmp_path / "docker")
    archive = tmp_path / "x.tar"
    subprocess.run(["tar", "-cf", archive, "-C", tmp_path, "docker"], check=True)
    with pytest.raises(UserError, match=r"x\.tar' has no .*; it has 'docker/Dockerfile', and"):
        DockerBuildContext.from_local_directory(workspace, str(archive))
