"""Ray Jobs as a warm client: a local head node, then one job for each line of stdin.

Each answer is JSON: seconds from the submission to the first log line and to the job's end, seen by
a client that asks every 20 ms.
"""

import json
import sys
import time

POLL_S = 0.02
START_S = 60.0


def main(address: str, script: str) -> None:
    """Serve until stdin ends."""
    import ray
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(address)
    until = time.monotonic() + START_S
    while True:  # a new head node has no agent for jobs yet
        try:
            client.submit_job(entrypoint="true")
            break
        except RuntimeError:
            if time.monotonic() > until:
                raise
            time.sleep(1)
    print(json.dumps({"ready": ray.__version__}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        job = client.submit_job(entrypoint=f"{sys.executable} {script}")
        first = 0.0
        while True:
            status = client.get_job_status(job)
            if not first and client.get_job_logs(job):
                first = time.perf_counter()
            if status.is_terminal():
                break
            time.sleep(POLL_S)
        done = time.perf_counter()
        if str(status) != "SUCCEEDED":
            raise SystemExit(f"the job ended as {status}")
        answer = {"first_line": (first or done) - started, "completed": done - started}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
