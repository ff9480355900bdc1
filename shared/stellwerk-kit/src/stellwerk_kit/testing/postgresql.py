"""A PostgreSQL server of Debian's package: on loopback, in a folder of its own, not as root."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from stellwerk_kit.testing.servers import Server, free_port

USER = "stellwerk"


def programs() -> Path | None:
    """Folder of the newest version's programs, None where there is none."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])
    )
    if found:
        return found[-1].parent
    beside = shutil.which("initdb")
    return Path(beside).parent if beside else None


class PostgresServer(Server):
    """One cluster. Who connects shows a password, which lies in ``passfile``."""

    def __init__(self, programs: Path) -> None:
        # Not in pytest's folder: another user of the machine, as which it runs, cannot enter that.
        super().__init__(Path(tempfile.mkdtemp(prefix="sw-pg-")), "postgres")
        self.port, self.password = free_port(), secrets.token_hex(16)
        self._programs, self._data = programs, self.folder / "data"
        self.passfile = self.folder / "passfile"
        self.passfile.touch(0o600)
        self.passfile.write_text(f"127.0.0.1:{self.port}:*:{USER}:{self.password}\n")
        (self.folder / "password").write_text(self.password)
        if self._as():
            account = pwd.getpwnam("postgres")
            for path in (self.folder, self.folder / "password"):
                os.chown(path, account.pw_uid, account.pw_gid)
        command = [
            str(programs / "initdb"),
            *("--pgdata", str(self._data), "--username", USER, "--no-sync"),
            *("--auth", "scram-sha-256", "--pwfile", str(self.folder / "password")),
            *("--encoding", "UTF8", "--locale", "C.UTF-8"),
        ]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self._as())

    def command(self) -> list[str]:
        """The command line. A crash of the process loses nothing; that of the machine may."""
        options = {
            "listen_addresses": "127.0.0.1", "port": self.port, "fsync": "off",
            "unix_socket_directories": "", "max_connections": "300",
        }  # fmt: skip
        settings = [word for name, text in options.items() for word in ("-c", f"{name}={text}")]
        return [str(self._programs / "postgres"), "-D", str(self._data), *settings]

    def ready(self) -> bool:
        """Whether it takes connections."""
        probe = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(probe, check=False).returncode == 0

    def options(self) -> dict[str, Any]:
        """Whose process it is."""
        return self._as()

    def url(self, database: str) -> str:
        """Address of a database for a service."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}?passfile={self.passfile}"

    def create(self, database: str) -> str:
        """Make a database; returns its address."""
        self.sql(f'CREATE DATABASE "{database}"')
        return self.url(database)

    def sql(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the cluster's owner."""
        import psycopg  # noqa: PLC0415 - only tests with a server pay this import

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def remove(self) -> None:
        """Stop and delete all data."""
        self.kill()  # of its process group: clients need not go first
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _as() -> dict[str, Any]:
        """The server refuses to run as root."""
        if os.geteuid() != 0:
            return {}
        return {"user": "postgres", "group": "postgres", "extra_groups": []}
