"""Channels behind a server made here: sharded indexes (CEP 16), logins, and that nobody tells them."""

import base64
import json
import os
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import rattler.index
from conda_building import build, failure, wants
from conda_channel import CondaChannel

from stellwerk_environment_build.builder import Builder
from stellwerk_environment_build.conda_channels import ChannelSettings
from stellwerk_environment_build.conda_logins import ChannelLogins, UnreadableLoginsError
from stellwerk_environment_build.failures import BuildFailedError, Failure

MakeBuilder = Callable[..., Builder]
USER, SECRET = "builder", "open-sesame"
BASIC = "Basic " + base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
LOGINS = {
    "bearer": {"BearerToken": SECRET},
    "basic": {"BasicHTTP": {"username": USER, "password": SECRET}},
    "token": {"CondaToken": SECRET},
}


class Server(ThreadingHTTPServer):
    """Serves ``folder``; with ``login`` only to who has it, of whatever kind."""

    def __init__(self, folder: Path) -> None:
        self.login, self.asked = False, list[str]()
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(folder))

            def log_message(self, *_args: Any) -> None:
                pass

            def send_response(self, code: int, message: str | None = None) -> None:
                """With the time of the file where it is as it was, as other servers send it."""
                super().send_response(code, message)
                if code == 304:
                    changed = Path(self.translate_path(self.path)).stat().st_mtime
                    self.send_header("Last-Modified", self.date_time_string(changed))

            def send_head(self) -> Any:
                server.asked.append(self.path)
                token = f"/t/{SECRET}/"
                known = self.headers.get("Authorization") in {f"Bearer {SECRET}", BASIC}
                if server.login and not known and not self.path.startswith(token):
                    return self.send_error(401)
                self.path = self.path.replace(token, "/")
                return super().send_head()

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/channel"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as made:
        Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "RATTLER_AUTH_FILE": str(tmp_path / "logins.json"),
    }


async def test_channel_with_a_sharded_index_alone(
    make_builder: MakeBuilder, channel: CondaChannel, server: Server
) -> None:
    channel.add_module("deep", "1.5")
    channel.add_module("tool", "2.0", ["deep >=1"])
    await rattler.index.index_fs(channel.folder, write_zst=False, write_shards=True, force=True)
    for whole in channel.folder.rglob("repodata.json"):
        whole.unlink()
    builder = make_builder(channels=ChannelSettings("auto", {"ours": server.address}))
    result = await build(builder, wants("tool"))
    assert {"deep=1.5=0", "tool=2.0=0"} < set(result.ready.packages)
    assert any("/shards/" in path for path in server.asked)
    found = await failure(
        make_builder(
            root=channel.folder.parent / "other",
            channels=ChannelSettings("channels", {"ours": server.address}),
        ),
        wants("unheard-of"),
    )
    assert found.code == "env.unsatisfiable"


@pytest.mark.parametrize("kind", LOGINS)
@pytest.mark.parametrize("mode", ["auto", "channels"])
async def test_channel_with_a_login_that_is_told_nowhere(
    make_builder: MakeBuilder,
    channel: CondaChannel,
    server: Server,
    environ: dict[str, str],
    kind: str,
    mode: str,
) -> None:
    channel.add_module("tool", "2.0")
    server.login = True
    Path(environ["RATTLER_AUTH_FILE"]).write_text(json.dumps({"127.0.0.1": LOGINS[kind]}))
    settings = ChannelSettings(mode, {"ours": server.address})  # type: ignore[arg-type]
    builder = make_builder(channels=settings, environ=environ)
    log: list[str] = []
    result = await build(builder, wants("tool"), log)
    assert "tool=2.0=0" in result.ready.packages
    (channel.folder / "noarch" / "tool-2.0-0.tar.bz2").unlink()
    log += [(await failing_rebuild(builder, wants("tool"))).message]
    told = [result.ready.model_dump_json(), *log]
    files = [path for path in builder.cache.root.rglob("*") if path.is_file()]
    assert len(files) > 20
    told += [path.read_bytes().decode(errors="replace") for path in files]
    assert not [text for text in told if SECRET in text]


async def failing_rebuild(builder: Builder, text: str) -> Failure:
    """With nothing kept of a package that the channel has no more."""
    for kept in (builder.cache.conda_cache / "packages").glob("tool-*"):
        kept.rename(kept.with_name(f"away-{kept.name}"))
    with pytest.raises(BuildFailedError) as caught:
        await build(builder, text, rebuild=True)
    return caught.value.failure


@pytest.mark.parametrize(
    ("logins", "mode", "code"),
    [
        ({"127.0.0.1": {"BearerToken": "wrong-sesame"}}, "auto", "env.channel_denied"),
        ({"127.0.0.1": {"CondaToken": "wrong-sesame"}}, "channels", "env.channel_denied"),
        ({}, "channels", "env.channel_denied"),
    ],
)
async def test_login_that_is_wrong_or_missing_is_the_operators(
    make_builder: MakeBuilder,
    channel: CondaChannel,
    server: Server,
    environ: dict[str, str],
    logins: dict[str, Any],
    mode: str,
    code: str,
) -> None:
    server.login = True
    Path(environ["RATTLER_AUTH_FILE"]).write_text(json.dumps(logins))
    settings = ChannelSettings(mode, {"ours": server.address})  # type: ignore[arg-type]
    found = await failure(make_builder(channels=settings, environ=environ), wants("tool"))
    assert (found.reason, found.code, found.retryable) == ("internal", code, False)
    assert "RATTLER_AUTH_FILE" in found.message
    assert "wrong-sesame" not in found.message


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 3}', '{"open-sesame": nul}'])
def test_broken_file_of_logins_is_said_at_the_start(
    make_builder: MakeBuilder, environ: dict[str, str], text: str
) -> None:
    Path(environ["RATTLER_AUTH_FILE"]).write_text(text)
    with pytest.raises(UnreadableLoginsError) as caught:
        make_builder(environ=environ)
    assert "RATTLER_AUTH_FILE" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_logins_of_hosts_and_all_below_them(tmp_path: Path) -> None:
    assert ChannelLogins.read(None) == ChannelLogins.read(str(tmp_path / "none")) == ChannelLogins()
    (tmp_path / "logins").write_text(json.dumps({"*.example.org": LOGINS["basic"], "a": {}}))
    logins = ChannelLogins.read(str(tmp_path / "logins"))
    assert logins.cover("x.example.org")
    assert logins.cover("a")
    assert not logins.cover("example.com")
    assert not logins.cover("badexample.org")
    assert logins.hide(f"http://h/t/abc/x {SECRET} {USER}") == f"http://h/t/***/x *** {USER}"
    assert SECRET not in repr(logins)
