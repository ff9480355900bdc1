"""``stellwerk up | down | status | doctor``."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import psutil

from stellwerk_embedded.doctor import CHECKS, Finding
from stellwerk_embedded.layout import Layout, default_home
from stellwerk_embedded.ports import BASE, LAST_BASE

DOWN_LIMIT_S = 60.0
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=None,
    help="Data folder. Default: $STELLWERK_HOME, or ~/.stellwerk.",
)
output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table"
)


def _layout(data: Path | None) -> Layout:
    return Layout((data or default_home()).expanduser().absolute())


@click.command()
@data_option
@click.option(
    "--port",
    type=click.IntRange(0, LAST_BASE),
    default=BASE,
    show_default=True,
    help="First of the ports; 0 takes free ones.",
)
@click.option("--foreground", is_flag=True, help="Stay, and end with Ctrl-C.")
def up(data: Path | None, port: int, foreground: bool) -> None:
    """Start the platform on this machine."""
    layout = _layout(data)
    layout.create()
    if _held(layout):
        click.echo(
            f"The platform runs already with {layout.home}.\nSee: stellwerk status", err=True
        )
        sys.exit(5)
    click.echo(f"Starting Stellwerk in {layout.home} …")
    started = time.monotonic()
    read, write = os.pipe()
    os.set_inheritable(write, True)
    log = (layout.logs / "supervisor.log").open("ab")
    command = ["-m", "stellwerk_embedded.supervisor", str(layout.home), str(port), str(write)]
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=(write,),
        start_new_session=True,
        cwd="/",
    )
    os.close(write)
    with os.fdopen(read) as answer:
        line = answer.readline()
    failure = json.loads(line)["failure"] if line else f"the supervisor ended; see {layout.logs}"
    if failure is not None:
        process.wait()
        click.echo(f"Stellwerk cannot start: {failure}", err=True)
        sys.exit(1)
    _say_where(layout, time.monotonic() - started)
    if foreground:
        try:
            process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()


def _say_where(layout: Layout, seconds: float) -> None:
    client: dict[str, Any] = json.loads(layout.client_file.read_text())
    click.echo(f"Ready in {seconds:.1f} s.")
    for name, text in (
        ("gateway", f"{client['url']}   (API description: {client['url']}/docs)"),
        ("bus", client["nats_url"]),
        ("credentials", str(layout.client_file)),
        ("data", str(layout.home)),
        ("logs", str(layout.logs)),
    ):
        click.echo(f"  {name:<12} {text}")
    click.echo("Next: stellwerk run submit SCRIPT.py · stellwerk status · stellwerk down")


@click.command()
@data_option
def down(data: Path | None) -> None:
    """Stop the platform; data stay."""
    layout = _layout(data)
    if not _held(layout):
        click.echo(f"Nothing runs with {layout.home}.")
        return
    pid = json.loads(layout.state_file.read_text())["pid"]
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_LIMIT_S
    while _held(layout):
        if time.monotonic() > deadline:
            click.echo(f"Process {pid} does not end; see {layout.logs}", err=True)
            sys.exit(1)
        time.sleep(0.05)
    click.echo("Stopped.")


@click.command()
@data_option
@output_option
def status(data: Path | None, output: str) -> None:
    """Show the processes of the platform; status 0 when all are ready, else 1."""
    layout = _layout(data)
    rows = _rows(layout) if _held(layout) and layout.state_file.exists() else []
    if output == "json":
        click.echo(json.dumps({"home": str(layout.home), "running": bool(rows), "processes": rows}))
    elif not rows:
        click.echo(f"Nothing runs with {layout.home}. Start with: stellwerk up")
    else:
        click.echo(
            f"{'PROCESS':<18}{'STATE':<12}{'PID':>8}{'PORT':>7}{'RESTARTS':>10}{'MEMORY':>10}"
        )
        for row in rows:
            click.echo(
                f"{row['name']:<18}{row['state']:<12}{row['pid'] or '-':>8}{row['port']:>7}"
                f"{row['restarts']:>10}{row['memory_mb']:>7} MB"
            )
    sys.exit(0 if rows and all(row["state"] == "ready" for row in rows) else 1)


def _rows(layout: Layout) -> list[dict[str, Any]]:
    state = json.loads(layout.state_file.read_text())
    return [
        {"name": name, **entry, "memory_mb": _memory_mb(entry["pid"])}
        for name, entry in state["processes"].items()
    ]


def _memory_mb(pid: int | None) -> int:
    try:
        return round(psutil.Process(pid).memory_info().rss / 1e6) if pid else 0
    except psutil.NoSuchProcess:
        return 0


@click.command()
@data_option
@output_option
def doctor(data: Path | None, output: str) -> None:
    """Check this machine and the platform; each problem comes with its fix."""
    layout = _layout(data)
    findings: list[Finding] = [check(layout) for check in CHECKS]
    if output == "json":
        click.echo(json.dumps([finding.__dict__ for finding in findings]))
    else:
        marks = {"ok": "ok  ", "warning": "warn", "problem": "FAIL"}
        for finding in findings:
            click.echo(f"{marks[finding.state]}  {finding.name:<22} {finding.found}")
            if finding.state != "ok":
                click.echo(f"      {'':<22} → {finding.fix}")
    sys.exit(1 if any(finding.state == "problem" for finding in findings) else 0)


def _held(layout: Layout) -> bool:
    """Whether a supervisor lives with this folder."""
    if not layout.lock_file.exists():
        return False
    with layout.lock_file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
