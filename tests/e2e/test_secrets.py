"""A secret from the command line to the SDK; what the platform wrote down meanwhile has none of it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import STELLWERK, Stack, log_text, run_body, submit, wait_terminal

from stellwerk import Keyvault, NotFoundError, UserError, Workspace

VALUE = "zx-correct-horse-battery-staple-zx"


def secret(stack: Stack, *arguments: str, value: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [STELLWERK, "secret", *arguments],
        env=stack.environment,
        input=value,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def vault(stack: Stack) -> Iterator[Keyvault]:
    workspace = Workspace(stack.client_file["url"], stack.client_file["token"])
    yield workspace.get_default_keyvault()
    workspace.client.close()


def test_a_secret_by_command_line_and_sdk_leaves_no_trace(stack: Stack, vault: Keyvault) -> None:
    done = secret(stack, "set", "db-password", value=VALUE.encode() + b"\n")
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert vault.get_secret("DB-Password") == VALUE
    others = set(vault.list_secrets()) - {"db-password"}  # of tests that share the stack
    vault.set_secrets({"one": VALUE + "1", "two": VALUE + "2"})
    assert vault.get_secrets(["one", "none", "two"]) == {
        "one": VALUE + "1", "none": None, "two": VALUE + "2",
    }  # fmt: skip
    assert vault.list_secrets() == sorted({"db-password", "one", "two"} | others)
    listed = secret(stack, "list")
    assert b"db-password" in listed.stdout
    assert VALUE.encode() not in listed.stdout + listed.stderr
    for refused in ("bad name", "a/b", "ä"):
        with pytest.raises(UserError, match="1 to 127"):
            vault.set_secret(refused, VALUE)
    with pytest.raises(UserError) as caught:
        vault.set_secret("long", VALUE * 1000)
    assert VALUE not in str(caught.value)
    for path in _files(stack.home):
        assert VALUE.encode() not in path.read_bytes(), path
    for name in ("db-password", "one", "two"):
        assert secret(stack, "delete", name).returncode == 0
    with pytest.raises(NotFoundError):
        vault.get_secret("one")
    assert secret(stack, "delete", "one").returncode == 6


def test_a_value_is_asked_of_stdin_only(stack: Stack) -> None:
    assert secret(stack, "set", "a", VALUE).returncode == 2
    empty = secret(stack, "set", "a")
    assert (empty.returncode, b"stdin is empty" in empty.stderr) == (2, True)
    binary = secret(stack, "set", "a", value=b"\xff" + VALUE.encode())
    assert (binary.returncode, VALUE.encode() in binary.stderr) == (2, False)


IN_RUN = """
from stellwerk_agent import Run, UserError
run = Run.get_context()
print(len(run.get_secret("in-run")), run.get_secrets(["in-run", "none"])["none"])
try:
    run.get_secret("none")
except UserError as error:
    print(error)
"""
SDK_IN_RUN = """
from stellwerk import Run, StellwerkError, Workspace
print(len(Run.get_context().get_secret("in-run")))
vault = Workspace.from_config().get_default_keyvault()
for change in (lambda: vault.set_secret("in-run", "x"), lambda: vault.delete_secret("in-run")):
    try:
        change()
    except StellwerkError as error:
        print(error.code)
"""


def test_a_run_reads_secrets_and_changes_none(stack: Stack, vault: Keyvault) -> None:
    vault.set_secret("in-run", VALUE)
    with stack.http() as http:
        for script, said in (
            (IN_RUN, "34 None\nsecret 'none': the workspace has none of that name\n"),
            (SDK_IN_RUN, "34\nauth.scope\nauth.scope\n"),
        ):
            run_id = submit(http, run_body(script))
            assert wait_terminal(http, run_id)["status"] == "Completed"
            assert log_text(http, run_id).decode() == said
    assert vault.get_secret("in-run") == VALUE
    vault.delete_secret("in-run")
    assert not [path for path in _files(stack.home) if VALUE.encode() in path.read_bytes()]


def _files(home: Path) -> list[Path]:
    return [
        path
        for path in home.rglob("*")
        if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)
    ]
