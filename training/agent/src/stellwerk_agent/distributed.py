"""Starts several processes of one script on this node and gives each its rank.

Run by the executor as ``python -m stellwerk_agent.distributed --backend pytorch --processes 4
--logs FOLDER -- python train.py ...``. Each process gets the variables of its backend:

- ``pytorch``: MASTER_ADDR, MASTER_PORT (6105 if it is free), WORLD_SIZE, RANK, LOCAL_RANK,
  LOCAL_WORLD_SIZE, NODE_RANK;
- ``mpi``: the OMPI_COMM_WORLD_* ones and AZ_BATCH_MASTER_NODE;
- ``tensorflow``: TF_CONFIG, the last ``--parameter-servers`` processes being those.

Standard output and error of process n go to ``FOLDER/std_log_process_<n>.txt`` as they come and
line by line, with ``[n] `` before each, to this process's own. The first process that fails ends
the others (SIGTERM, ten seconds later SIGKILL), and its exit code is this one's. Parameter servers
are ended when all workers are done.
"""

import argparse
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Tuple

    Ended = queue.Queue[Tuple["_Process", int]]

PREFERRED_PORT = 6105
END_GRACE_S = 10.0
DRAIN_S = 5.0
_HERE = "127.0.0.1"
_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 16


def variables(
    backend: str, rank: int, processes: int, servers: int, ports: "List[int]"
) -> "Dict[str, str]":
    """What process ``rank`` finds in its environment; ``ports``: the master's, or one a process."""
    if backend == "tensorflow":
        places = ["%s:%d" % (_HERE, port) for port in ports]
        workers = processes - servers
        cluster = {"worker": places[:workers]}
        if servers:
            cluster["ps"] = places[workers:]
        kind, index = ("worker", rank) if rank < workers else ("ps", rank - workers)
        task = {"type": kind, "index": index}
        return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task, "environment": "cloud"})}
    master: "Dict[str, object]" = {"MASTER_ADDR": _HERE, "MASTER_PORT": ports[0]}
    if backend == "mpi":
        own: "Dict[str, object]" = {
            "OMPI_COMM_WORLD_RANK": rank,
            "OMPI_COMM_WORLD_SIZE": processes,
            "OMPI_COMM_WORLD_LOCAL_RANK": rank,
            "OMPI_COMM_WORLD_LOCAL_SIZE": processes,
            "OMPI_COMM_WORLD_NODE_RANK": 0,
            "AZ_BATCH_MASTER_NODE": "%s:%d" % (_HERE, ports[0]),
        }
    else:
        own = {
            "WORLD_SIZE": processes,
            "RANK": rank,
            "LOCAL_RANK": rank,
            "LOCAL_WORLD_SIZE": processes,
            "NODE_RANK": 0,
        }
    return {name: str(value) for name, value in {**master, **own}.items()}


def free_ports(count: int) -> "List[int]":
    """Ports nobody listens on now; the first is 6105 if that is free."""
    held = []
    try:
        for wanted in [PREFERRED_PORT] + [0] * (count - 1):
            listener = socket.socket()
            held.append(listener)
            try:
                listener.bind((_HERE, wanted))
            except OSError:
                listener.bind((_HERE, 0))
        return [listener.getsockname()[1] for listener in held]
    finally:
        for listener in held:
            listener.close()


class _Process:
    """One process and the thread that copies what it prints."""

    def __init__(
        self, rank: int, argv: "List[str]", env: "Dict[str, str]", log: str, ended: "Ended"
    ) -> None:
        self.rank = rank
        self._log, self._ended = log, ended
        self._process = subprocess.Popen(
            argv,
            env=dict(os.environ, **env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._copier = threading.Thread(target=self._copy, daemon=True)
        self._copier.start()
        threading.Thread(target=self._wait, daemon=True).start()

    def signal(self, number: int) -> None:
        """Send a signal if the process is alive."""
        with suppress(ProcessLookupError):  # it may have ended just now
            if self._process.poll() is None:
                self._process.send_signal(number)

    def drain(self) -> None:
        """Wait until all it printed is copied; what it left running may hold the pipe open."""
        self._copier.join(DRAIN_S)

    def _wait(self) -> None:
        code = self._process.wait()
        self.drain()
        self._ended.put((self, code if code >= 0 else 128 - code))

    def _copy(self) -> None:
        assert self._process.stdout is not None
        pending = b""
        with self._process.stdout as source, open(self._log, "wb", buffering=0) as log:
            while True:
                chunk = os.read(source.fileno(), _CHUNK)
                log.write(chunk)
                pending += chunk
                end = pending.rfind(b"\n") + 1
                if not chunk or len(pending) - end > _LONGEST_LINE:
                    end = len(pending)
                _print(self.rank, pending[:end])
                pending = pending[end:]
                if not chunk:
                    return


def _print(rank: int, text: bytes) -> None:
    """Whole lines in one write: what the processes print does not mix within a line."""
    if text:
        mark = b"[%d] " % rank
        lines = text[:-1].split(b"\n") if text.endswith(b"\n") else text.split(b"\n")
        sys.stdout.buffer.write(b"".join(mark + line + b"\n" for line in lines))
        sys.stdout.buffer.flush()


def run(argv: "List[str]", backend: str, processes: int, servers: int, logs: str) -> int:
    """Start, watch and end the processes; the exit code of the whole."""
    os.makedirs(logs, exist_ok=True)
    # The supervisor signals the whole group: the processes end by themselves, this one after them.
    asked_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: asked_to_stop.set())
    ports = free_ports(processes if backend == "tensorflow" else 1)
    ended: "Ended" = queue.Queue()
    width = len(str(processes - 1))
    started = []
    for rank in range(processes):
        env = variables(backend, rank, processes, servers, ports)
        log = os.path.join(logs, "std_log_process_%0*d.txt" % (width, rank))
        started.append(_Process(rank, argv, env, log, ended))
    if asked_to_stop.is_set():  # some of them may have been started after the signal
        for each in started:
            each.signal(signal.SIGTERM)
    return _watch(started, processes - servers, ended)


def _watch(started: "List[_Process]", workers: int, ended: "Ended") -> int:
    alive, code, stopping = set(started), 0, False
    kill_after: "Optional[float]" = None
    while alive:
        try:
            process, status = ended.get(timeout=kill_after)
        except queue.Empty:
            kill_after = None
            for each in alive:
                each.signal(signal.SIGKILL)
            continue
        alive.discard(process)
        if status and not stopping:
            code = status
            if alive:
                text = "process %d ended with %d; ending the others"
                print(text % (process.rank, status), flush=True)
        if not stopping and (code or not any(each.rank < workers for each in alive)):
            stopping, kill_after = True, END_GRACE_S
            for each in alive:
                each.signal(signal.SIGTERM)
    return code


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="stellwerk_agent.distributed")
    parser.add_argument("--backend", choices=("pytorch", "mpi", "tensorflow"), required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--parameter-servers", type=int, default=0)
    parser.add_argument("--logs", required=True)
    parser.add_argument("argv", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    argv = given.argv[1:] if given.argv[:1] == ["--"] else given.argv
    return run(argv, given.backend, given.processes, given.parameter_servers, given.logs)


if __name__ == "__main__":
    sys.exit(main())
