"""Something that is watched for while something else is done."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def beside(name: str, watch: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run ``watch`` on a thread of that name during the block.

    It is given an event that is set when the block is over, and waited for then.
    """
    over = threading.Event()
    thread = threading.Thread(target=watch, args=(over,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
