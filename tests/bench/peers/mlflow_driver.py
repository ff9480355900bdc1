"""MLflow Projects as a warm client: imported once, then one local run for each line of stdin.

A line is JSON: {"script": name, "count": n}. Runs are local, tracked in SQLite, synchronous; what a
script prints comes out here. When they are over, a line {"seconds": ..., "runs": n} follows.
"""

import json
import os
import sys
import time
from pathlib import Path

PROJECT = """
name: bench
entry_points:
  hello: {{command: "{python} hello.py"}}
  noop: {{command: "{python} noop.py"}}
"""


def main(folder: Path) -> None:
    """Serve until stdin ends."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MLproject").write_text(PROJECT.format(python=sys.executable))
    (folder / "hello.py").write_text("print('hello')\n")
    (folder / "noop.py").write_text("pass\n")
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    import mlflow
    import mlflow.projects

    mlflow.set_tracking_uri(f"sqlite:///{folder.parent}/mlflow.db")
    mlflow.set_experiment("bench")
    print(json.dumps({"ready": mlflow.__version__}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        started = time.perf_counter()
        for _ in range(asked["count"]):
            mlflow.projects.run(
                str(folder), entry_point=asked["script"], env_manager="local", synchronous=True
            )
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "runs": asked["count"]}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
