"""``Tensorboard``: fetches what runs wrote to ``./logs`` and shows it in a TensorBoard here."""

import importlib.util
import re
import subprocess
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from azureml.exceptions import AzureMLException, UserErrorException
from stellwerk.run import Run
from stellwerk.runstate import TERMINAL

REFRESH_S = 15.0
START_S = 60.0
_ADDRESS = re.compile(r"^TensorBoard .* at (http://\S+)")


class Tensorboard:
    """A TensorBoard process over the ``logs/`` files of runs, kept fresh while they go on.

    ``local_root``: where files are put (default: a temporary folder); with an empty list of runs
    it is shown as it is. ``port`` 0 takes a free one.
    """

    def __init__(
        self, runs: Run | Sequence[Run], local_root: str | None = None, port: int = 6006
    ) -> None:
        self._runs = [runs] if isinstance(runs, Run) else list(runs)
        if not all(isinstance(run, Run) for run in self._runs):
            raise UserErrorException("runs: give a Run or a list of Runs")
        if not self._runs and local_root is None:
            raise UserErrorException(
                "runs: the list is empty and local_root names no folder; there is nothing to show"
            )
        self._root = Path(local_root or tempfile.mkdtemp(prefix="stellwerk-tensorboard-"))
        self._port = int(port)
        self._process: subprocess.Popen[str] | None = None
        self._stopping = threading.Event()
        self._refresher: threading.Thread | None = None

    def start(self, start_browser: bool = False) -> str:
        """Fetch the logs and start TensorBoard; prints and returns its address.

        Raises UserErrorException where TensorBoard is not installed, or does not start.
        """
        if self._process is not None:
            raise UserErrorException("TensorBoard runs already; call stop() first")
        if importlib.util.find_spec("tensorboard") is None:
            raise UserErrorException(
                "TensorBoard is not installed in this Python: pip install tensorboard"
            )
        self._fetch()
        address = self._started()
        self._stopping.clear()
        self._refresher = threading.Thread(target=self._keep_fresh, daemon=True)
        self._refresher.start()
        print(address)  # noqa: T201 - v1 prints it too
        if start_browser:
            webbrowser.open(address)
        return address

    def stop(self) -> None:
        """End TensorBoard; nothing happens where it does not run. Fetched files stay."""
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()
        if self._refresher is not None:
            self._refresher.join()
        self._process = self._refresher = None

    def _started(self) -> str:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(self._root)]
        command += ["--port", str(self._port), "--host", "localhost"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        said: list[str] = []
        deadline = threading.Timer(START_S, self._process.kill)
        deadline.start()
        try:
            for line in self._process.stderr or ():
                said.append(line)
                if found := _ADDRESS.search(line):
                    # Somebody has to read on, or TensorBoard stops at a full pipe.
                    threading.Thread(target=self._drain, daemon=True).start()
                    return found[1]
        finally:
            deadline.cancel()
        self.stop()
        raise UserErrorException(f"TensorBoard did not start: {''.join(said)[-1000:].strip()}")

    def _drain(self) -> None:
        process = self._process
        for _ in (process.stderr if process else None) or ():
            pass

    def _keep_fresh(self) -> None:
        while any(run.view.status not in TERMINAL for run in self._runs):
            if self._stopping.wait(REFRESH_S):
                return
            try:
                self._fetch()
            except AzureMLException:
                continue  # the platform is away for a moment

    def _fetch(self) -> None:
        """Get what is new below ``logs/`` of every run."""
        for run in self._runs:
            run.refresh()
            folder = self._root / run.id
            folder.mkdir(parents=True, exist_ok=True)
            for file in run.files():
                target = folder / file.path.removeprefix("logs/")
                if not file.path.startswith("logs/") or _same_size(target, file.size):
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                run.download_file(file.path, str(target))


def _same_size(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size
