"""Real servers and small helpers for tests; ``fixtures`` is a pytest plugin."""

from stellwerk_kit.testing.clock import FakeClock
from stellwerk_kit.testing.servers import NatsServer, S3Server, free_port
from stellwerk_kit.testing.waiting import wait_until

__all__ = ["FakeClock", "NatsServer", "S3Server", "free_port", "wait_until"]
