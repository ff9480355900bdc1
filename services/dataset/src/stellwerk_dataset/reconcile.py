"""The safety net: every pending web address is being read, after a crash or a failure too."""

from stellwerk_dataset.fetcher import Fetcher
from stellwerk_dataset.waiting import WaitingStore

INTERVAL_S = 30.0


async def sweep(store: WaitingStore, fetcher: Fetcher) -> None:
    """Begin to read what is pending and not being read."""
    for url in await store.pending():
        fetcher.start(url)
