"""The kit on NATS and MinIO as most will run them: containers of the images in docker-compose.yml."""

import json
from pathlib import Path

import httpx2
import servers_in_containers as servers

from stellwerk_kit import topology
from stellwerk_kit.bus import Bus
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.settings import ServiceSettings


async def test_broker_takes_the_topology_once(tmp_path: Path) -> None:
    with servers.nats() as url:
        bus = await Bus.connect(ServiceSettings(nats_url=url, data_dir=tmp_path), "test")
        try:
            made = await topology.apply(bus.js)
            assert len(made.missing) == len(topology.STREAMS) + len(topology.CONSUMERS)
            assert (await topology.plan(bus.js)).empty
        finally:
            await bus.close()


async def test_object_store_keeps_and_presigns(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"access_key": servers.USER, "secret_key": servers.PASSWORD}))
    with servers.minio() as endpoint:
        store = ObjectStore(ServiceSettings(s3_endpoint=endpoint, s3_credentials=keys))
        try:
            await store.ensure_bucket()
            digest = await store.put_bytes(b"in a container")
            assert await store.get_bytes(digest) == b"in a container"
            assert httpx2.get(store.presign_get(digest)).content == b"in a container"
        finally:
            store.close()
