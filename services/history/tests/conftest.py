"""History on a real broker and a real object store."""

import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from stellwerk_history.app import build
from stellwerk_history.settings import Settings
from stellwerk_kit.bus import Bus
from stellwerk_kit.objects import ObjectStore

sys.path.append(str(Path(__file__).parent))  # importlib mode does not
from history_setup import Sim, Start


@pytest.fixture
def sim(bus: Bus, objects: ObjectStore) -> Sim:
    return Sim(bus, objects)


@pytest_asyncio.fixture
async def start(
    runtime_factory: Any, objects: ObjectStore, s3_settings: dict[str, Any], tmp_path: Path
) -> Start:
    """Starts the service, again and again on the same folder."""

    async def begin(**values: Any) -> Any:
        folder = tmp_path / "history"
        return await runtime_factory(
            "history", Settings, build, data_dir=folder, **s3_settings, **values
        )

    return begin
