"""Follow a run's status stream on the bus, from its first event, until it has ended."""

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
    events = await bus.jetstream().subscribe(f"sw.evt.run.{run_id}.>", ordered_consumer=True)
    async for message in events.messages:
        verb = message.subject.split(".")[4]
        print(message.headers["ce-sequence"], verb, message.headers["ce-time"], flush=True)
        if verb in {"completed", "failed", "canceled"}:
            break
    await bus.close()


asyncio.run(main(*sys.argv[1:]))
