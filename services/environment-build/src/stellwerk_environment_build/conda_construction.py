"""An environment with conda packages: a prefix from the channels, the pip packages on top of it."""

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from stellwerk_environment_build import conda_prefix, inspection, uv_command
from stellwerk_environment_build.cache import LOCK, write_fresh
from stellwerk_environment_build.conda_channels import ChannelSettings, worker_command
from stellwerk_environment_build.conda_failures import of_conda
from stellwerk_environment_build.conda_request import Answer, Request
from stellwerk_environment_build.construction import Construction, require
from stellwerk_environment_build.failures import BuildFailedError, Failure, Phase
from stellwerk_environment_build.inspection import Lock

_PLANNED = re.compile(r"^\s*(?P<sign>[+-]) (?P<name>[\w.-]+)==(?P<version>\S+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class CondaConstruction(Construction):
    """``prefix``: where the environment will lie; ``conda_cache``: kept packages and indexes."""

    channels: ChannelSettings
    conda_cache: Path
    prefix: Path

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
        write_fresh(shim, uv_command.bare_interpreter(self.python))
        shim.chmod(0o700)
        return shim

    @property
    def _conda_lock(self) -> Path:
        return self.work / "conda.lock"

    async def _put_in_place(self) -> None:
        await self.log.line("      Installing the conda packages")
        await self._conda("install", "install", self.limits.install_s)
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
            lock=self._conda_lock,
            target=self.target,
            prefix=self.prefix,
        )
        request.write_text(asked.model_dump_json())

        async def on_line(line: str) -> None:
            await self.log.line(f"      {line}")

        command = worker_command(verb, request, answer)
        ended = await self._run(phase, command, limit_s, on_line, lambda: f"{verb} goes on")
        if answer.exists():
            said = Answer.model_validate_json(answer.read_bytes())
            if said.error is not None:
                failure = of_conda(said.error, said.message, self.spec.conda.channels)
                raise BuildFailedError(failure)
        require(ended, phase)
