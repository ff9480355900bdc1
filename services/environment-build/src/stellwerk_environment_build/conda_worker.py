"""Everything that calls the conda solver, as a process: ``probe``, ``solve``, ``fetch``, ``link``.

A process, so that a limit, a cancellation or a lack of memory ends it whole and nothing but it, and
so that the solver's library is loaded only where conda packages are wanted. It reads a request
(JSON of :mod:`conda_request`), prints lines for people, and writes its answer (JSON) to a file.
``link`` is for packages that were fetched and checked: it needs no network and no login.
"""

import asyncio
import hashlib
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import rattler
from rattler.exceptions import (
    GatewayError,
    InstallerError,
    InvalidMatchSpecError,
    SolverError,
)
from rattler.networking import AuthenticationMiddleware, Client, RetryMiddleware
from rattler.package_streaming import download_and_extract

from stellwerk.sizes import size_text
from stellwerk_environment_build.conda_failures import without_places
from stellwerk_environment_build.conda_lock import CondaEntry, file_stem, read_entries, spell
from stellwerk_environment_build.conda_logins import ChannelLogins, UnreadableLoginsError
from stellwerk_environment_build.conda_packages import KeptPackages, OutsideError
from stellwerk_environment_build.conda_prefix import forget_place
from stellwerk_environment_build.conda_request import Answer, Request

PROBE_SECONDS = 3.0
RETRIES = 2
PARALLEL = 4
KEPT = "packages"
_LOGIN = frozenset({401, 403})
_REFUSING = _LOGIN | {407}
_DENIED = re.compile(r"HTTP status client error \((401|403)\b")


class _WorkError(Exception):
    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.answer = Answer(error=error, message=message)


class _Work:
    def __init__(self, request: Request) -> None:
        self.request = request
        self.channels = _channels(request)
        self.names = _names(self.channels)
        self.logins = ChannelLogins.read(os.environ.get("RATTLER_AUTH_FILE"))
        # Its own client knows no logins.
        self.client = Client([RetryMiddleware(RETRIES), AuthenticationMiddleware()])
        self.gateway = rattler.Gateway(cache_dir=request.cache / "repodata", client=self.client)
        self.platform = rattler.Subdir.current()

    async def probe(self) -> Answer:
        """Which channels answer."""
        urls = {name: channel.base_url for name, channel in self.channels.items()}
        async with asyncio.TaskGroup() as group:
            asked = {
                name: group.create_task(asyncio.to_thread(_answers, url, self.logins))
                for name, url in urls.items()
            }
        return Answer(answering=tuple(name for name, task in asked.items() if task.result()))

    async def solve(self) -> Answer:
        """Choose packages and write their lock."""
        for name in self.request.channels:
            await self._look(name)
        records = await rattler.solve(
            list(self.channels.values()),
            [self._spec(text) for text in self.request.packages],
            gateway=self.gateway,
            platforms=[self.platform, "noarch"],
            virtual_packages=self._machine(),
        )
        entries = []
        for record in records:
            if record.sha256 is None:
                raise _WorkError("hash", f"{record.file_name} of {record.channel} has no SHA-256")
            entries.append(
                CondaEntry(
                    channel=self.names[str(record.channel).rstrip("/") + "/"],
                    subdir=record.subdir,
                    file=record.file_name,
                    sha256=record.sha256.hex(),
                )
            )
        self.request.lock.write_text(spell(entries))
        _say(f"Chose {len(entries)} packages")
        return Answer()

    async def fetch(self) -> Answer:
        """Have the packages of the lock unpacked, hashes and places checked, for :meth:`link`."""
        records = await self._records(read_entries(self.request.lock.read_text()))
        size = sum(record.size or 0 for record in records)
        _say(f"{len(records)} packages, {size_text(size)} packed")
        kept = KeptPackages(self.request.cache / KEPT, self.request.readable)
        gate = asyncio.Semaphore(PARALLEL)
        failed: list[Exception] = []

        async def have(record: rattler.RepoDataRecord) -> None:
            async with gate:
                try:
                    if not failed:
                        await self._keep(record, kept, fresh)
                except Exception as error:  # noqa: BLE001 - raised once nobody unpacks any more
                    failed.append(error)

        with kept.unpacking() as fresh:
            await asyncio.gather(*map(have, records))
        if failed:
            raise failed[0]
        self.request.records.mkdir()
        for record in records:
            noted = rattler.PrefixRecord(record, rattler.PrefixPaths())
            noted.write_to_path(self.request.records / f"{record.file_name}.json", False)
        return Answer()

    async def _keep(self, record: rattler.RepoDataRecord, kept: KeptPackages, fresh: Path) -> None:
        await asyncio.to_thread(_check, record)

        async def unpack(folder: Path) -> None:
            try:
                await download_and_extract(self.client, record.url, folder, record.sha256)
            except Exception as error:  # its kinds are not told apart by class
                denied = _DENIED.search(str(error)) is not None
                message = f"{record.file_name}: {error}"
                raise _WorkError("denied" if denied else "install", message) from error

        try:
            await kept.keep(*_key(record), unpack, fresh)
        except OutsideError as error:
            raise _WorkError("outside", f"{record.file_name} {error}") from error

    async def _look(self, name: str) -> None:
        """Whether the channel is one: its index can be read."""
        try:
            await self.gateway.query([self.channels[name]], ["noarch"], ["python"], recursive=False)
        except GatewayError as error:
            raise _WorkError(_kind(str(error)), f"channel {name}: {error}") from error

    async def _records(self, entries: Iterable[CondaEntry]) -> list[rattler.RepoDataRecord]:
        wanted = {(each.channel, each.subdir, each.file): each for each in entries}
        found: dict[tuple[str, str, str], rattler.RepoDataRecord] = {}
        for name, channel in self.channels.items():
            specs = [
                f"{key.name} =={key.version}" for key in wanted.values() if key.channel == name
            ]
            if specs:
                answers = await self.gateway.query(
                    [channel], [self.platform, "noarch"], specs, recursive=False
                )
                for record in (each for answer in answers for each in answer):
                    key = (name, record.subdir, record.file_name)
                    if key in wanted and record.sha256 == bytes.fromhex(wanted[key].sha256):
                        found[key] = record
        if missing := sorted(file for _, _, file in wanted.keys() - found.keys()):
            raise _WorkError("gone", f"The channels have these no more: {', '.join(missing)}")
        return list(found.values())

    def _spec(self, text: str) -> rattler.MatchSpec:
        channel, separator, rest = text.rpartition("::")
        if not separator:
            return rattler.MatchSpec(text)
        return rattler.MatchSpec(f"{self.channels[channel].base_url}::{rest}")

    def _machine(self) -> list[rattler.VirtualPackage]:
        found = rattler.VirtualPackage.detect()
        keep = (each for each in found if self.request.cuda or "Cuda" not in repr(each))
        return list(keep)


def _channels(request: Request) -> dict[str, rattler.Channel]:
    config = rattler.ChannelConfig(**({"channel_alias": request.alias} if request.alias else {}))
    return {
        name: rattler.Channel(request.addresses.get(name, name), config)
        for name in request.channels
    }


def _names(channels: Mapping[str, rattler.Channel]) -> dict[str, str]:
    return {channel.base_url: name for name, channel in channels.items()}


async def _link(request: Request) -> Answer:
    """Put the packages that :meth:`_Work.fetch` noted in place."""
    records = [
        rattler.PrefixRecord.from_path(path) for path in sorted(request.records.glob("*.json"))
    ]
    kept, shown = KeptPackages(request.cache / KEPT), request.records / KEPT
    shown.mkdir()
    for each in records:
        kept.show(*_key(each), shown, f"{each.name.normalized}-{each.version}-{each.build}")
    await rattler.install(
        list(records),
        target_prefix=request.target,
        alternative_target_prefix=request.prefix,
        cache_dir=shown,
        execute_link_scripts=False,
        platform=rattler.Subdir.current(),
        client=Client(),  # it knows no logins, and has nobody to ask
        reporter=_Reporter(),  # type: ignore[abstract]
    )
    forget_place(request.target, _names(_channels(request)))
    return Answer()


def _key(record: rattler.RepoDataRecord) -> tuple[str, str]:
    assert record.sha256 is not None  # noqa: S101 - its lock has it
    return file_stem(record.file_name), record.sha256.hex()


class _Reporter(rattler.InstallerReporter):
    def on_link_start(self, operation: int, package_name: str) -> int:
        _say(f" + {package_name}")
        return operation


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _check(record: rattler.RepoDataRecord) -> None:
    """The hash of a package in a folder, which the library takes as it is."""
    address = urllib.parse.urlsplit(record.url)
    if address.scheme == "file":
        with Path(urllib.request.url2pathname(address.path)).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").digest()
        if found != record.sha256:
            raise _WorkError("install", f"hash mismatch of {record.file_name}")


def _answers(address: str, logins: ChannelLogins) -> bool:
    """Whether a server, or a folder, answers there; one that asks for a login, if there is one."""
    if not address.startswith(("http://", "https://")):
        return True
    url = f"{address}noarch/repodata.json"
    try:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - checked above
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        host = urllib.parse.urlsplit(url).hostname or ""
        if error.code in _LOGIN and logins.cover(host):
            return True
        return error.code < 500 and error.code not in _REFUSING
    except OSError:
        return False


def _kind(words: str) -> str:
    """Of an error about a channel's index."""
    if _DENIED.search(words):
        return "denied"
    if "404" in words or "could not find subdir" in words or "No such file" in words:
        return "channel"
    return "unreachable" if "error sending request" in words or "HTTP status" in words else "index"


async def _done(verb: str, request: Request) -> Answer:
    try:
        if verb == "link":
            return await _link(request)
        work = _Work(request)
        verbs: dict[str, Callable[[], Awaitable[Answer]]] = {
            "probe": work.probe,
            "solve": work.solve,
            "fetch": work.fetch,
        }
        return await verbs[verb]()
    except _WorkError as error:
        return error.answer
    except InvalidMatchSpecError as error:
        return Answer(error="spec", message=str(error))
    except SolverError as error:
        return Answer(error="unsolvable", message=str(error))
    except GatewayError as error:
        return Answer(error=_kind(str(error)), message=str(error))
    except InstallerError as error:
        denied = _DENIED.search(str(error)) is not None
        return Answer(error="denied" if denied else "install", message=str(error))
    except UnreadableLoginsError as error:
        return Answer(error="logins", message=str(error))
    except OSError as error:
        return Answer(error="internal", message=error.strerror or type(error).__name__)
    except Exception as error:  # noqa: BLE001 - its words and places are nothing for users
        return Answer(error="internal", message=type(error).__name__)


def _hidden(answer: Answer, request: Request) -> Answer:
    """The solver's words name addresses, and those may hold a token; and the builder's folders."""
    message = without_places(answer.message, request.cache, request.target.parent)
    with suppress(UnreadableLoginsError):
        message = ChannelLogins.read(os.environ.get("RATTLER_AUTH_FILE")).hide(message)
    return answer.model_copy(update={"message": message})


def main() -> int:
    """``conda_worker VERB REQUEST ANSWER``; 0 if it is done."""
    verb, asked, answer = sys.argv[1:]
    request = Request.model_validate_json(Path(asked).read_bytes())
    done = _hidden(asyncio.run(_done(verb, request)), request)
    Path(answer).write_text(done.model_dump_json())
    if done.error:
        _say(f"error: {done.message}")
    return 1 if done.error else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # the library's threads do not survive an interpreter that takes itself apart
