"""The per-run supervisor: owns one run's processes, log, records and exit record.

Started by the executor as a script (`python -I -S <this folder>/__main__.py <attempt folder>`),
talks to it only through files and datagrams, and outlives it. Reference: docs/run-protocol.md.
"""
