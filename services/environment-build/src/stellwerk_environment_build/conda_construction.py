"""An environment with conda packages: a prefix from the channels, the pip packages on top of it."""

import asyncio
import os
import re
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from stellwerk.events.image import ENVIRONMENT_FOLDER
from stellwerk_environment_build import (
    activation_worker,
    compile_worker,
    conda_prefix,
    inspection,
    uv_command,
)
from stellwerk_environment_build.build_cell import BuildCell, own_installation
from stellwerk_environment_build.cache import LOCK, write_fresh
from stellwerk_environment_build.conda_channels import ChannelSettings, worker_command
from stellwerk_environment_build.conda_failures import of_conda
from stellwerk_environment_build.conda_request import Answer, Request
from stellwerk_environment_build.construction import Activated, Construction, require
from stellwerk_environment_build.failures import BuildFailedError, Failure, Phase
from stellwerk_environment_build.inspection import Lock
from stellwerk_environment_build.run_variables import activated
from stellwerk_kit.beneath import open_beneath

_PLANNED = re.compile(r"^\s*(?P<sign>[+-]) (?P<name>[\w.-]+)==(?P<version>\S+)", re.MULTILINE)


_LOGINS = "RATTLER_AUTH_FILE"
_TRUSTED = ("SSL_CERT_FILE", "SSL_CERT_DIR")
# The library makes itself a client also where it asks nobody, and not without certificates.
_CERTIFICATES = (Path("/etc/ssl/certs"), Path("/etc/pki"), Path("/etc/ca-certificates"))
ACTIVATE_S = 60.0
MOST_SAID_BYTES = 1 << 20
NOT_ACTIVATED = (
    "activation scripts of its conda packages were not run, for lack of a sandbox on the builder's "
    "machine; put the variables that they would set under variables of the definition"
)


@dataclass(frozen=True, kw_only=True)
class CondaConstruction(Construction):
    """``prefix``: where the environment will lie; ``conda_cache``: kept packages and indexes.

    ``readable``: what the operator shows in cells besides the system; links may lead there.
    ``cell``: what the channel's interpreter is started in; None starts it plainly, and runs no
    activation script, which would be code of packages outside of any wall.
    """

    channels: ChannelSettings
    conda_cache: Path
    prefix: Path
    cell: BuildCell | None = None
    readable: tuple[Path, ...] = ()

    async def resolve(self) -> Lock:
        """Choose and install conda packages, then choose pip packages that go with them."""
        if self.locked is not None:
            return await super().resolve()
        assert self.spec.conda is not None  # noqa: S101 - that is why it is this class
        packages, channels = self.spec.conda.packages, ", ".join(self.spec.conda.channels)
        await self.log.line(f"[1/4] Solving {len(packages)} conda packages from {channels}")
        for spec in packages:
            await self.log.line(f"      {spec}")
        await self._conda("solve", "resolve", self.limits.resolve_s)
        conda = self._conda_lock.read_text()
        await self._put_in_place()
        pip = await self._choose_on_top() if self.spec.requirements else ""
        return Lock(conda + pip)

    async def create(self, lock: Lock) -> None:
        """The prefix with the conda packages of ``lock``, if :meth:`resolve` has not made it."""
        if not self.target.exists():
            self._conda_lock.write_text(lock.text)
            await self._put_in_place()

    async def install(self, lock: Lock) -> None:
        """The pip packages; their scripts start the interpreter at the final place."""
        await super().install(lock)
        conda_prefix.repoint_scripts(self.target, self.prefix)

    def _install_command(self) -> list[str]:
        return uv_command.add_command(self.target / LOCK, self._shim(), self.index)

    def _shim(self) -> Path:
        """What uv asks about the prefix: its interpreter, which sees none of uv's logins."""
        shim = self.work / "python"
        cache = Path(self.environ["UV_CACHE_DIR"])
        script = (
            uv_command.bare_interpreter(self.python)
            if self.cell is None
            else self.cell.asked_by_uv(self.python, self.target, cache)
        )
        write_fresh(shim, script)
        shim.chmod(0o700)
        return shim

    async def activate(self) -> Activated:
        """Which variables the conda packages set for runs. Raises BuildFailedError after a minute.

        Told by the packages' own scripts, once, as if the environment were in place already.
        """
        own = {"CONDA_PREFIX": ENVIRONMENT_FOLDER}
        if not await asyncio.to_thread(has_activation, self.target):
            return Activated(own)
        if self.cell is None:
            return Activated(own, (NOT_ACTIVATED,))
        answers = self.work / "activated"
        answers.mkdir()
        worker = Path(activation_worker.__file__)
        python, answer = self.prefix / "bin" / "python", answers / "answer.json"
        command = self.cell.command(
            [str(python), "-I", "-S", str(worker), str(self.prefix), str(answer)],
            readable=(worker,),
            writable=(answers,),
            at={self.target: self.prefix},
        )

        async def on_line(line: str) -> None:
            await self.log.line(f"      {line}")

        more = {
            "CONDA_PREFIX": str(self.prefix),
            "CONDA_DEFAULT_ENV": str(self.prefix),
            "CONDA_SHLVL": "1",
            "HOME": "/tmp",  # noqa: S108 - the cell's own
            "PATH": f"{self.prefix}/bin:{os.defpath}",
        }
        await self.log.line("      Asking the conda packages which variables they set")
        await self._run(
            "activate", command, ACTIVATE_S, on_line, lambda: "activating", bare=True, more=more
        )
        said = await asyncio.to_thread(_read_small, self.work, answer)
        variables, warnings = activated(said, self.prefix)
        for warning in warnings:
            await self.log.line(f"Warning: {warning}")
        return Activated({**own, **variables}, warnings)

    def _compile_command(self, listing: Path, workers: int) -> list[str]:
        plain = super()._compile_command(listing, workers)
        if self.cell is None:
            return plain
        worker = Path(compile_worker.__file__)
        return self.cell.command(plain, readable=(listing, worker), writable=(self.target,))

    @property
    def _conda_lock(self) -> Path:
        return self.work / "conda.lock"

    async def _put_in_place(self) -> None:
        await self.log.line("      Installing the conda packages")
        await self._conda("fetch", "install", self.limits.install_s)
        await self._conda("link", "install", self.limits.install_s)
        if not self.python.exists():
            raise BuildFailedError(
                Failure(
                    "your-spec",
                    "env.python",
                    "The channels' package python has no bin/python; choose another channel.",
                    retryable=False,
                )
            )

    async def _choose_on_top(self) -> str:
        """The lock of the pip packages: what the conda packages have is kept where it fits."""
        wanted, chosen, lock = (self.work / name for name in ("wanted.txt", "chosen.txt", LOCK))
        wanted.write_text("".join(f"{line}\n" for line in self.spec.requirements))
        await self.log.line(f"      Resolving {len(self.spec.requirements)} requirements on top")
        command = uv_command.plan_command(wanted, self._shim(), self.index, self._pins())
        ended = await self._uv(
            "resolve", command, self.limits.resolve_s, lambda: "resolving", show=False
        )
        planned = [found.groupdict() for found in _PLANNED.finditer(ended.output)]
        added = [f"{each['name']}=={each['version']}" for each in planned if each["sign"] == "+"]
        replaced = {each["name"]: each["version"] for each in planned if each["sign"] == "-"}
        for name, version in replaced.items():
            await self.log.line(f"      Warning: the pip section replaces conda's {name} {version}")
        if not added:
            return ""
        chosen.write_text("".join(f"{line}\n" for line in added))
        fresh = {canonicalize_name(each["name"]) for each in planned if each["sign"] == "+"}
        kept = [each.name for each in inspection.distributions(self.target)]
        excluded = self.work / "excluded.txt"
        excluded.write_text("".join(f"{name}\n" for name in sorted(set(kept) - fresh)))
        command = uv_command.lock_command(chosen, excluded, lock, self._shim(), self.index)
        await self._uv("resolve", command, self.limits.resolve_s, lambda: "locking", show=False)
        return self.checked(lock.read_text())

    def _worker(self, verb: str, request: Path, answer: Path) -> list[str]:
        """Its command; in a cell, since the names of a package's files may lead anywhere.

        Who links packages sees neither network nor logins, and can write to the environment alone.
        """
        command = worker_command(verb, request, answer)
        if self.cell is None:
            return command
        self.conda_cache.mkdir(parents=True, exist_ok=True)
        trusted = [Path(self.environ[name]) for name in _TRUSTED if name in self.environ]
        own = (*own_installation(os.environ), *trusted)
        if verb == "link":
            seen = (*own, *_CERTIFICATES, self.conda_cache)
            return self.cell.command(command, readable=seen, writable=(self.work,))
        addresses = [*self.channels.addresses.values(), self.channels.alias or ""]
        folders = [Path(each.removeprefix("file://")) for each in addresses if _is_folder(each)]
        logins = [Path(self.environ[name]) for name in (_LOGINS,) if name in self.environ]
        return self.cell.command(
            command,
            readable=(*own, *folders, *logins),
            writable=(self.work, self.conda_cache),
            network=True,
        )

    async def _conda(self, verb: str, phase: Phase, limit_s: float) -> None:
        assert self.spec.conda is not None  # noqa: S101 - see resolve
        request, answer = self.work / f"{verb}.json", self.work / f"{verb}.answer"
        asked = Request(
            channels=self.spec.conda.channels,
            addresses=dict(self.channels.addresses),
            alias=self.channels.alias,
            packages=self.spec.conda.packages,
            cuda=self.spec.conda.cuda,
            cache=self.conda_cache,
            readable=self.readable,
            lock=self._conda_lock,
            records=self.work / "records",
            target=self.target,
            prefix=self.prefix,
        )
        request.write_text(asked.model_dump_json())

        async def on_line(line: str) -> None:
            await self.log.line(f"      {line}")

        command = self._worker(verb, request, answer)
        more = {name: self.environ[name] for name in _TRUSTED if name in self.environ}
        ended = await self._run(
            phase,
            command,
            limit_s,
            on_line,
            lambda: f"{verb} goes on",
            bare=verb == "link",
            more=more,
        )
        if answer.exists():
            said = Answer.model_validate_json(answer.read_bytes())
            if said.error is not None:
                failure = of_conda(said.error, said.message, self.spec.conda.channels)
                raise BuildFailedError(failure)
        require(ended, phase)


def has_activation(environment: Path) -> bool:
    """Whether a package wants something done when the environment is activated."""
    folder = environment / "etc" / "conda"
    return any(any(folder.glob(each)) for each in ("activate.d/*.sh", "env_vars.d/*.json"))


def _is_folder(address: str) -> bool:
    return address.startswith("file:///")


def _read_small(top: Path, path: Path) -> bytes:
    """The file, whatever a package may have put in its place; nothing where it is none."""
    try:
        file = open_beneath(top, path)
    except OSError:
        return b""
    try:
        return os.read(file.descriptor, MOST_SAID_BYTES)
    finally:
        file.close()
