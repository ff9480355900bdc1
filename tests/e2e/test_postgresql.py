"""The embedded stack with every service's store in PostgreSQL: one address for all, a run on it."""

from pathlib import Path

from stack import Stack, log_text, request, run_body, submit, wait_terminal

from stellwerk_kit.testing.postgresql import PostgresServer

STORES = ("scheduler", "environment_build", "dataset", "history", "model_registry", "keyvault")
SCRIPT = """
import os
os.makedirs("outputs", exist_ok=True)
open("outputs/model.txt", "w").write("weights")
from stellwerk import Run
Run.get_context().log("loss", 0.5)
print("trained")
"""


def test_a_run_where_stores_are_in_postgresql(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    for store in STORES:
        postgres_server.create(f"e2e_{store}")
    stack = Stack(tmp_path, STELLWERK_DATABASE_URL=postgres_server.url("e2e_{service}"))
    try:
        stack.up()
        with stack.http() as http:
            run = submit(http, run_body(SCRIPT))
            view = wait_terminal(http, run)
            assert view["status"] == "Completed", (view, stack.logs())
            assert log_text(http, run) == b"trained\n"
            postgres_server.kill()  # as a machine that goes away: the platform goes on where it was
            postgres_server.start()
            points = request("GET", http, f"/runs/{run}/metrics").json()["points"]
            assert [(point["name"], point["value"]) for point in points] == [("loss", 0.5)]
            model = {"name": "m", "run_id": run, "path": "outputs/model.txt"}
            answer = request("POST", http, "/models", json=model)
            assert answer.status_code in {200, 201}, answer.text
            again = wait_terminal(http, submit(http, run_body(SCRIPT)))
            assert again["status"] == "Completed", (again, stack.logs())
        files = [path.stem for path in (tmp_path / "services").rglob("*.db")]
        assert files == ["gpu-executor"]  # an executor's store is of its machine
    finally:
        stack.down()
