"""A conda channel in a folder, of small packages made here; Python is this machine's own."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

VERSION = ".".join(str(part) for part in sys.version_info[:3])
MINOR = ".".join(str(part) for part in sys.version_info[:2])
PLACEHOLDER = "/placeholder" * 20
PLATFORM = f"linux-{'aarch64' if os.uname().machine == 'aarch64' else '64'}"


class CondaChannel:
    """``folder`` is what a channel's address names; every change writes its index anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for subdir in ("noarch", PLATFORM):
            (folder / subdir).mkdir(parents=True)
        self.index()

    @property
    def address(self) -> str:
        return f"file://{self.folder}"

    def add_python(
        self, started: bytes | None = None, more: Mapping[str, str] | None = None
    ) -> None:
        """This machine's interpreter as a package: its binary, its library by links.

        ``started``: what lies at bin/python instead of a link; ``more``: further links.
        """
        base = Path(sys.base_prefix)
        library = base / "lib" / f"python{MINOR}"
        links = {
            f"lib/python{MINOR}/{entry.name}": str(entry)
            for entry in library.iterdir()
            if entry.name not in {"site-packages", "dist-packages", "__pycache__"}
        }
        links |= {"bin/python": f"python{MINOR}", "bin/python3": f"python{MINOR}", **(more or {})}
        files = {
            f"bin/python{MINOR}": (base / "bin" / f"python{MINOR}").read_bytes(),
            f"lib/python{MINOR}/site-packages/README.txt": b"packages lie here\n",
        }
        if started is not None:
            del links["bin/python"]
            files["bin/python"] = started
        self.add("python", VERSION, files, subdir=PLATFORM, links=links)

    def add_whole_python(self, python: Path, started: bytes | None = None) -> None:
        """The interpreter of a Debian at ``python``, without links: for other machines of its kind.

        ``started``: what lies at bin/python instead of a link. Debian's own looks for packages
        elsewhere than conda puts them.
        """
        words = [str(python), "-c", "import platform; print(platform.python_version())"]
        version = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        minor = version.rpartition(".")[0]
        library = python.parents[1] / "lib" / f"python{minor}"
        paths = (path for path in library.rglob("*") if path.is_file() and not path.is_symlink())
        files = {
            f"lib/python{minor}/{path.relative_to(library)}": path.read_bytes() for path in paths
        }
        where = f'import site, sys\nsite.addsitedir(f"{{sys.prefix}}/lib/python{minor}/site-packages")\n'
        files |= {
            f"bin/python{minor}": python.read_bytes(),
            f"lib/python{minor}/sitecustomize.py": where.encode(),
            f"lib/python{minor}/site-packages/README.txt": b"packages lie here\n",
            **({"bin/python": started} if started else {}),
        }
        links = {"bin/python3": f"python{minor}"}
        links |= {} if started else {"bin/python": f"python{minor}"}
        self.add("python", version, files, subdir=PLATFORM, links=links)

    def add_module(self, name: str, version: str = "1.0", depends: Sequence[str] = ()) -> Path:
        """A ``noarch: python`` package with one module and a script."""
        info = f"site-packages/{name}-{version}.dist-info"
        metadata = (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense-Expression: MIT\n"
        )
        files = {
            f"site-packages/{name}.py": f"VERSION = {version!r}\ndef main(): print(VERSION)\n".encode(),
            f"{info}/METADATA": metadata.encode(),
            f"{info}/RECORD": f"{name}.py,,\n{name}-{version}.dist-info/RECORD,,\n".encode(),
            f"{info}/INSTALLER": b"conda\n",
        }
        scripts = [f"{name}-says = {name}:main"]
        link = {
            "noarch": {"type": "python", "entry_points": scripts},
            "package_metadata_version": 1,
        }
        extra = {"info/link.json": json.dumps(link).encode()}
        needs = ["python >=3.8", *depends]
        return self.add(name, version, files, depends=needs, noarch="python", extra=extra)

    def add(
        self,
        name: str,
        version: str,
        files: Mapping[str, bytes],
        *,
        depends: Sequence[str] = (),
        build: str = "0",
        subdir: str = "noarch",
        noarch: str | None = None,
        links: Mapping[str, str] | None = None,
        extra: Mapping[str, bytes] | None = None,
    ) -> Path:
        """A package; a file that holds PLACEHOLDER gets the prefix there."""
        links = links or {}
        paths = [_entry(path, data) for path, data in files.items()]
        paths += [
            {"_path": path, "path_type": "softlink", "size_in_bytes": 0, "sha256": _sha256(b"")}
            for path in links
        ]
        about = {
            "name": name, "version": version, "build": build, "build_number": 0,
            "depends": list(depends), "subdir": subdir, "license": "MIT",
        }  # fmt: skip
        about |= {"noarch": noarch} if noarch else {}
        infos = {
            "info/index.json": json.dumps(about).encode(),
            "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}).encode(),
            **(extra or {}),
        }
        target = self.folder / subdir / f"{name}-{version}-{build}.tar.bz2"
        with tarfile.open(target, "w:bz2", compresslevel=1) as archive:
            for path, data in {**infos, **files}.items():  # for index() first what it reads
                member = tarfile.TarInfo(path)
                member.size, member.mode = len(data), 0o755 if path.startswith("bin/") else 0o644
                archive.addfile(member, io.BytesIO(data))
            for path, goal in links.items():
                member = tarfile.TarInfo(path)
                member.type, member.linkname = tarfile.SYMTYPE, goal
                archive.addfile(member)
        self.index()
        return target

    def index(self) -> None:
        for subdir in ("noarch", PLATFORM):
            packages = {}
            for path in (self.folder / subdir).glob("*.tar.bz2"):
                with tarfile.open(path) as archive:
                    found = next(each for each in archive if each.name == "info/index.json")
                    member = archive.extractfile(found)
                    assert member is not None
                    about: dict[str, Any] = json.load(member)
                data = path.read_bytes()
                packages[path.name] = about | {"sha256": _sha256(data), "size": len(data)}
            content = {"info": {"subdir": subdir}, "packages": packages, "packages.conda": {}}
            (self.folder / subdir / "repodata.json").write_text(json.dumps(content))


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"_path": path, "path_type": "hardlink"}
    entry |= {"sha256": _sha256(data), "size_in_bytes": len(data)}
    if PLACEHOLDER.encode() in data:
        entry["prefix_placeholder"] = PLACEHOLDER
        entry["file_mode"] = "binary" if b"\0" in data else "text"
    return entry


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
