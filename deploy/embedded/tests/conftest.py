"""A prepared data folder and a running broker; ``embedded_setup.py`` is shared by the tests."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))

from embedded_setup import Prepared

from stellwerk_embedded import credentials, nats_config, ports, prepare, s3_config
from stellwerk_embedded.layout import Layout
from stellwerk_embedded.probes import NatsProbe, problem
from stellwerk_kit.testing import wait_until


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """A folder as ``stellwerk up`` leaves it for its supervisor, on free ports."""
    layout = Layout(tmp_path / "häuschen am see")
    prepare.folder(layout)
    chosen = ports.choose(layout.ports_file, 0)
    credentials.ensure(layout)
    nats_config.write(layout, chosen)
    s3_config.write(layout, chosen)
    credentials.write_client_file(layout, chosen)
    return Prepared(layout, chosen)


@pytest_asyncio.fixture
async def broker(prepared: Prepared) -> AsyncIterator[Prepared]:
    """A running broker with its real configuration."""
    process = prepared.run("nats")
    try:
        probe = NatsProbe(prepared.ports["nats"], prepared.layout.secrets / "nats-admin.json")

        async def ready() -> bool:
            assert process.poll() is None, prepared.layout.log("nats").read_text()
            return await problem(probe) is None

        await wait_until(ready, 20)
        yield prepared
    finally:
        process.terminate()
        process.wait()
