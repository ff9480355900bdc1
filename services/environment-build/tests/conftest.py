"""Hand-made wheels in a folder, and builders that install from nowhere else."""

import base64
import hashlib
import os
import socket
import sys
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.msg import Msg

sys.path.append(str(Path(__file__).parent))  # importlib mode does not

from conda_channel import CondaChannel

from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.events import Envelope, Event, ImageFailed, ImageReady, RunPreparing, decode
from stellwerk.runspec import EnvironmentPin, EnvironmentReference
from stellwerk_environment_build.app import build
from stellwerk_environment_build.build_cell import CellSettings
from stellwerk_environment_build.builder import Builder
from stellwerk_environment_build.cache import EnvironmentCache
from stellwerk_environment_build.conda_channels import ChannelSettings
from stellwerk_environment_build.construction import Limits
from stellwerk_environment_build.interpreters import Interpreter
from stellwerk_environment_build.settings import Settings
from stellwerk_environment_build.uv_command import IndexOptions
from stellwerk_kit.bus import Bus
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.service import Runtime
from stellwerk_kit.testing import wait_until


@pytest.fixture
def python() -> Interpreter:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Interpreter(version, Path(sys.executable).resolve())


@pytest.fixture
def make_wheel(tmp_path: Path) -> Callable[..., Path]:
    """``make_wheel(name, version, files, requires)`` -> path in ``tmp_path/wheels``."""

    def make(
        name: str,
        version: str = "1.0",
        files: Mapping[str, str] | None = None,
        requires: tuple[str, ...] = (),
    ) -> Path:
        info = f"{name}-{version}.dist-info"
        needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
        contents = {
            **({f"{name}.py": f"VERSION = {version!r}\n"} if files is None else files),
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{path},{_digest(text)},{len(text)}\n" for path, text in contents.items())
        contents[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
        target = tmp_path / "wheels" / f"{name}-{version}-py3-none-any.whl"
        target.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(target, "w") as archive:
            for path, text in contents.items():
                archive.writestr(path, text)
        return target

    return make


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture
def make_builder(tmp_path: Path, python: Interpreter) -> Callable[..., Builder]:
    """A builder on ``tmp_path/cache`` that knows only the wheels of ``make_wheel``."""

    def make(**changes: Any) -> Builder:
        (tmp_path / "wheels").mkdir(exist_ok=True)
        options: dict[str, Any] = {
            "index": IndexOptions(find_links=(tmp_path / "wheels",), no_index=True),
            "limits": Limits(heartbeat_s=0.5, workers=1),
            "environ": {"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            # The interpreter of the tests' conda channel is this machine's, by links.
            "sandbox": CellSettings("require", (Path(sys.base_prefix),)),
            **changes,
        }
        root = options.pop("root", tmp_path / "cache")
        return Builder(EnvironmentCache(root), [python], **options)

    return make


@pytest.fixture
def channel(tmp_path: Path) -> CondaChannel:
    made = CondaChannel(tmp_path / "channel")
    made.add_python()
    return made


@pytest.fixture
def builder(make_builder: Callable[..., Builder], channel: CondaChannel) -> Builder:
    return make_builder(channels=ChannelSettings("channels", {"ours": channel.address}))


@pytest.fixture
def served(channel: CondaChannel) -> Any:
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(channel.folder.parent))

        def log_message(self, *_args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def hanging_index() -> Iterator[str]:
    """An index that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/simple"


@pytest.fixture
def start(
    runtime_factory: Callable[..., Awaitable[Runtime[Settings]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Awaitable[Runtime[Settings]]]:
    """Starts the service with the wheels of ``make_wheel``; the same data folder each time."""

    async def begin(**changes: Any) -> Runtime[Settings]:
        (tmp_path / "wheels").mkdir(exist_ok=True)
        return await runtime_factory(
            "environment-build", Settings, build, **{**_settings(tmp_path), **changes}
        )

    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    return begin


def _settings(folder: Path) -> dict[str, Any]:
    return {
        "data_dir": folder / "data",
        "environments_dir": folder / "environments",
        "build_find_links": (folder / "wheels",),
        "build_no_index": True,
        "build_workers": 1,
    }


@dataclass
class Seen:
    """Everything the service said on the bus."""

    bus: Bus
    events: list[Event] = field(default_factory=list)
    logs: list[Msg] = field(default_factory=list)

    def about(self, run_id: str, kind: type[Event]) -> list[Any]:
        return [
            each
            for each in self.events
            if isinstance(each, kind) and run_id in getattr(each, "run_ids", ())
        ]

    async def prepare(
        self,
        run_id: str,
        environment: EnvironmentDefinition | EnvironmentReference,
        pin: EnvironmentPin | None = None,
        sequence: int = 2,
    ) -> None:
        event = RunPreparing(
            run_id=run_id,
            experiment="e",
            environment=environment,
            environment_pin=pin,
            inputs={},
        )
        now = SystemClock().now()
        await self.bus.publish(Envelope.wrap(event, source="/test", time=now, sequence=sequence))

    async def ready(self, run_id: str, deadline_s: float = 30.0) -> ImageReady:
        found = await wait_until(
            lambda: self.about(run_id, ImageReady) or self.about(run_id, ImageFailed), deadline_s
        )
        assert isinstance(found[0], ImageReady), found[0]
        return found[0]

    async def failed(self, run_id: str) -> ImageFailed:
        found: list[ImageFailed] = await wait_until(lambda: self.about(run_id, ImageFailed), 30.0)
        return found[0]

    def log_text(self, env_id: str, number: int) -> str:
        subject = f"sw.log.{env_id}.{number}.build"
        parts = sorted(
            (int((each.headers or {})["Sw-Offset"]), each.data)
            for each in self.logs
            if each.subject == subject
        )
        text = b""
        for offset, data in parts:
            assert offset <= len(text), "a gap in the log"
            text = text[:offset] + data
        return text.decode()

    def log_closed(self, env_id: str, number: int) -> bool:
        subject = f"sw.log.{env_id}.{number}.build"
        return any(
            each.subject == subject and "Sw-Final" in (each.headers or {}) for each in self.logs
        )


@pytest_asyncio.fixture
async def seen(bus: Bus) -> AsyncIterator[Seen]:
    collected = Seen(bus)

    async def on_event(message: Msg) -> None:
        collected.events.append(decode(message.subject, message.headers, message.data).event)

    async def on_log(message: Msg) -> None:
        collected.logs.append(message)

    await bus.client.subscribe("sw.evt.image.>", cb=on_event)
    await bus.client.subscribe("sw.log.>", cb=on_log)
    await bus.flush()
    yield collected
