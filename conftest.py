"""Fixtures shared by all tests: real servers from the kit."""

pytest_plugins = ["stellwerk_kit.testing.fixtures"]
