"""Submit a run with nothing but a NATS client: publish RunSubmitted."""

import asyncio
import json
import sys
from pathlib import Path

import nats


async def main(client_file: str, run_id: str) -> None:
    me = json.loads(Path(client_file).read_text())
    bus = await nats.connect(
        me["nats_url"],
        user=me["nats_user"],
        password=me["nats_password"],
        inbox_prefix=f"_INBOX_{me['nats_user']}",
    )
    spec = {"source": {"inline": {"hello.py": "print('hello from the bus')"}}, "script": "hello.py"}
    event = {"run_id": run_id, "experiment": "bus", "spec": spec}
    headers = {
        "ce-type": "stellwerk.submission.submitted.v1",
        "ce-id": f"submission/{run_id}/submitted",
    }
    stored = await bus.jetstream().publish(
        f"sw.evt.submission.{run_id}.submitted",
        json.dumps(event).encode(),
        headers={**headers, "Nats-Msg-Id": headers["ce-id"]},
    )
    print(f"accepted: {run_id} is message {stored.seq} of {stored.stream}")
    await bus.close()


asyncio.run(main(*sys.argv[1:]))
