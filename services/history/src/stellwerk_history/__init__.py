"""The history service: what happened to every run, its logs, metrics and files."""
