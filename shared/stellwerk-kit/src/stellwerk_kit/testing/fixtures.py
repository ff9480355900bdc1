"""pytest fixtures on real servers. Loaded by the root ``conftest.py``."""

import gc
import itertools
import os
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from stellwerk_kit import topology
from stellwerk_kit.bus import Bus
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.service import Runtime
from stellwerk_kit.settings import ServiceSettings
from stellwerk_kit.testing.host import lacking
from stellwerk_kit.testing.postgresql import PostgresServer, programs
from stellwerk_kit.testing.servers import NatsServer, S3Server

RuntimeFactory = Callable[..., Awaitable[Runtime[Any]]]
_numbers = itertools.count()


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A fresh broker for this test (ready in well under a second)."""
    server = NatsServer(tmp_path / "nats").start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One object store for the session; tests get their own bucket."""
    server = S3Server(tmp_path_factory.mktemp("s3")).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for the session; each test makes its own databases."""
    found = programs()
    if found is None:
        lacking("PostgreSQL is not installed: deploy/host-packages postgresql")
    server = PostgresServer(found)
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def engine_refuses() -> Iterator[None]:
    """For tests whose Docker engine does not answer.

    The client library leaves the sockets that it tried to the collector, which would tell of them
    at any time, as failures of whatever test runs then.
    """
    gc.disable()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    gc.enable()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty store, of each kind there is."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    return _database(request)


@pytest.fixture
def service_settings(nats_server: NatsServer, tmp_path: Path) -> ServiceSettings:
    """Settings for a service on this test's broker, without an object store."""
    return ServiceSettings(
        nats_url=nats_server.url, data_dir=tmp_path / "service", time_profile="test"
    )


@pytest.fixture
def s3_settings(s3_server: S3Server) -> dict[str, Any]:
    """Keyword arguments for a settings class: this test's own bucket."""
    return {
        "s3_endpoint": s3_server.endpoint,
        "s3_credentials": s3_server.credentials,
        "s3_bucket": f"test-{next(_numbers)}",
    }


@pytest_asyncio.fixture
async def bus(service_settings: ServiceSettings) -> AsyncIterator[Bus]:
    """A connection to this test's broker, with the whole topology applied."""
    connection = await Bus.connect(service_settings, "test")
    await topology.apply(connection.js)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def objects(s3_settings: dict[str, Any]) -> AsyncIterator[ObjectStore]:
    """An object store with a bucket of its own."""
    store = ObjectStore(ServiceSettings(**s3_settings))
    await store.ensure_bucket()
    yield store
    store.close()


@pytest_asyncio.fixture
async def runtime_factory(
    bus: Bus,  # noqa: ARG001 - applies the topology
    nats_server: NatsServer,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> AsyncIterator[RuntimeFactory]:
    """Start services in this process: ``await factory(name, Settings, build, **settings)``.

    Each gets its own connection and, unless ``data_dir`` is given, its own folder; what still
    runs at the end is stopped. A restart is ``await runtime.stop()`` and a second call with the
    same ``data_dir``. With STELLWERK_TEST_DATABASE=postgresql their stores are there.
    """
    on_postgresql = os.environ.get("STELLWERK_TEST_DATABASE") == "postgresql"
    urls: dict[tuple[str, Path], str] = {}
    started: list[Runtime[Any]] = []

    async def start(
        name: str,
        settings_class: type[ServiceSettings],
        build: Callable[[Runtime[Any]], Awaitable[None]],
        **values: Any,
    ) -> Runtime[Any]:
        values.setdefault("data_dir", tmp_path / f"{name}-{next(_numbers)}")
        if on_postgresql and "database_url" not in values:
            key = name, values["data_dir"]
            urls[key] = urls.get(key) or _database(request)
            values["database_url"] = urls[key]
        settings = settings_class(nats_url=nats_server.url, time_profile="test", **values)
        runtime: Runtime[Any] = Runtime(name, settings, await Bus.connect(settings, name))
        await build(runtime)
        await runtime.start()
        started.append(runtime)
        return runtime

    yield start
    for runtime in reversed(started):
        if not runtime.bus.client.is_closed:
            await runtime.stop()


def _database(request: pytest.FixtureRequest) -> str:
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create(f"test_{next(_numbers)}")
