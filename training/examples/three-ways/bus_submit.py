"""Submit a run with nothing but a NATS client: publish RunSubmitted, and hear what comes of it."""

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
    subject = f"sw.evt.submission.{run_id}.submitted"
    spec = {"source": {"inline": {"hello.py": "print('hello from the bus')"}}, "script": "hello.py"}
    event = {"run_id": run_id, "experiment": "bus", "spec": spec}
    headers = {
        "ce-type": "stellwerk.submission.submitted.v1",
        "ce-id": f"submission/{run_id}/submitted",
    }
    # The run's first step, or the reason why the message is none that anybody can read.
    answers: asyncio.Queue = asyncio.Queue()
    await bus.subscribe(f"sw.evt.run.{run_id}.>", cb=answers.put)
    await bus.subscribe("sw.dead.scheduler-facts", cb=answers.put)
    stored = await bus.jetstream().publish(
        subject, json.dumps(event).encode(), headers={**headers, "Nats-Msg-Id": headers["ce-id"]}
    )
    again = " (it was there already)" if stored.duplicate else ""
    print(f"accepted: {run_id} is message {stored.seq} of {stored.stream}{again}")
    while not stored.duplicate:
        answer = await asyncio.wait_for(answers.get(), 60)
        if answer.subject.startswith("sw.evt.run."):
            break
        if answer.headers["Sw-Subject"] == subject:
            sys.exit(f"refused: {answer.headers['Sw-Reason']}")
    await bus.close()


asyncio.run(main(*sys.argv[1:]))
