"""First page of the run list at 50,000 runs against 1,000, in the history service's own store.

Both stores are filled through the projection, then read in turn. Prints one JSON line with the
medians, and the ratio as the last word.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from stellwerk import events as e
from stellwerk.runspec import InlineSource, RunSpec
from stellwerk_history.paging import parse_order
from stellwerk_history.queries import Queries, RunFilter
from stellwerk_history.store import Fact, ProjectionStore
from stellwerk_history.tables import metadata
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.db import Database

SMALL, LARGE = 1_000, 50_000
ROUNDS = 101
BATCH = 1_000
START = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = RunSpec(source=InlineSource(inline={"train.py": "pass"}), script="train.py")


async def fill(db: Database, count: int) -> None:
    """Submissions of 10 experiments."""
    store = ProjectionStore(db)
    for start in range(0, count, BATCH):
        facts = []
        for number in range(start, min(count, start + BATCH)):
            event = e.RunSubmitted(
                run_id=f"{number:032x}", experiment=f"experiment-{number % 10}", spec=SPEC
            )
            at = START + timedelta(seconds=number)
            envelope = e.Envelope.wrap(event, source="/bench", time=at, sequence=1)
            facts.append(Fact(envelope, number + 1))
        await store.project(facts, facts[-1].position)


async def page(queries: Queries) -> float:
    """Seconds for the first page, newest first."""
    started = time.perf_counter()
    found = await queries.list_runs(RunFilter(), parse_order("newest"), 50, None, START)
    assert len(found.items) == 50
    return time.perf_counter() - started


async def main() -> None:
    """Fill, read in turn, print."""
    with tempfile.TemporaryDirectory() as folder:
        stores = {}
        for count in (SMALL, LARGE):
            url = f"sqlite:///{Path(folder, str(count))}.db"
            db = Database(url, metadata, clock=SystemClock(), source="/bench")
            await db.start()
            await fill(db, count)
            stores[count] = db
        times: dict[int, list[float]] = {SMALL: [], LARGE: []}
        for _ in range(ROUNDS):
            for count, db in stores.items():
                times[count].append(await page(Queries(db)))
        for db in stores.values():
            await db.close()
    medians = {count: statistics.median(values[1:]) for count, values in times.items()}
    print(json.dumps({"median_s": medians, "rounds": ROUNDS - 1}))
    print(medians[LARGE] / medians[SMALL])


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
