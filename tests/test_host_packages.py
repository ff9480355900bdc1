"""What the script of the machine's packages installs; its package manager stands in a folder."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "deploy" / "host-packages"
ENGINE = ("dockerd", "iptables", "mmdebstrap", "docker-registry")


@pytest.mark.parametrize(
    ("docker", "offered", "installed"),
    [
        (None, "docker.io docker-cli docker-buildx", ["docker-cli", "docker-buildx"]),
        (None, "docker.io", ["docker.io"]),
        ("exit 1", "docker.io docker-cli docker-buildx", ["docker-buildx"]),
        ("exit 1", "docker.io", []),
        ("exit 0", "docker.io docker-cli docker-buildx", []),
    ],
)
def test_the_docker_command_and_buildkit_where_the_release_has_them(
    tmp_path: Path, docker: str | None, offered: str, installed: list[str]
) -> None:
    log = tmp_path / "log"

    def program(name: str, text: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!{shutil.which('bash')}\n{text}\n")
        path.chmod(0o755)

    for name in ENGINE:
        program(name, "exit 0")
    program("id", "echo 0")
    program("apt-get", f'test "$1" = update || echo "$*" >> {log}')
    program(
        "apt-cache",
        f"""case " {offered} " in *" $2 "*) echo "  Candidate: 26.1";; """
        '*) echo "  Candidate: (none)";; esac',
    )
    if docker is not None:
        program("docker", docker)
    bash = str(shutil.which("bash"))
    environ = {**os.environ, "PATH": str(tmp_path)}
    subprocess.run([bash, str(SCRIPT), "docker"], env=environ, check=True, capture_output=True)
    words = log.read_text().split() if log.exists() else []
    assert [word for word in words if word.startswith("docker")] == installed
