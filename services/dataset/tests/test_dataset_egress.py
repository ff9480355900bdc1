"""The guard against a real server on loopback that the operator allows."""

import asyncio
import gzip
import socket
from pathlib import Path
from typing import Any

import pytest

from stellwerk.errors import UserError
from stellwerk_dataset.egress import Guard, Limits

SMALL = Limits(bytes=100_000, connect_s=2, idle_s=0.2, total_s=2)


def guard(web: Any, limits: Limits = SMALL, **more: Any) -> Guard:
    return Guard(frozenset({web.authority}), limits, **more)


async def refused(fetcher: Guard, url: str, path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        await fetcher.fetch(url, path)
    return caught.value


async def test_reads_and_follows_redirects(web: Any, tmp_path: Path) -> None:
    web.pages["/d/data.bin"] = web.page(body=b"content", etag='"1"')
    web.redirect("/a", "b?x=1")
    web.redirect("/b?x=1", web.url("/d/data.bin"))
    found = await guard(web).fetch(web.url("/a"), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"content"
    assert (found.final_url, found.etag) == (web.url("/d/data.bin"), '"1"')
    headers = web.requests[0][1]
    assert headers["accept-encoding"] == "identity"
    assert headers["host"] == web.authority
    assert not {"authorization", "cookie", "referer"} & set(headers)


async def test_cookies_are_not_kept(web: Any, tmp_path: Path) -> None:
    web.pages["/a"] = web.page(302, location="/b", set_cookie="secret=1")
    web.pages["/b"] = web.page(body=b"x")
    await guard(web).fetch(web.url("/a"), tmp_path / "out")
    assert "cookie" not in web.requests[1][1]


async def test_proxy_variables_are_ignored(
    web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    web.pages["/a"] = web.page(body=b"x")
    await guard(web).fetch(web.url("/a"), tmp_path / "out")
    assert web.count("/a") == 1


@pytest.mark.parametrize(
    ("to", "code"),
    [
        ("http://169.254.169.254/latest/meta-data/", "url.blocked_redirect"),
        ("http://[::ffff:127.0.0.1]/", "url.blocked_redirect"),
        ("http://2130706433/", "url.blocked_redirect"),
        ("//0177.0.0.1/", "url.blocked_redirect"),
        ("http://127.0.0.1:1/", "url.port"),
        ("file:///etc/passwd", "url.scheme"),
        ("http://user:pass@example.org/", "url.userinfo"),
        ("http:\\\\169.254.169.254/", "url.malformed"),
    ],
)
@pytest.mark.parametrize("hops", [1, 5])
async def test_redirect_to_a_forbidden_place(
    web: Any, tmp_path: Path, to: str, code: str, hops: int
) -> None:
    for number in range(1, hops):
        web.redirect(f"/{number}", f"/{number + 1}")
    web.redirect(f"/{hops}", to)
    error = await refused(guard(web), web.url("/1"), tmp_path / "out")
    assert error.code == code
    assert code != "url.blocked_redirect" or f"redirect {hops}" in error.message
    assert not (tmp_path / "out").exists()


async def test_redirects_end(web: Any, tmp_path: Path) -> None:
    web.redirect("/loop", "/loop")
    assert (await refused(guard(web), web.url("/loop"), tmp_path / "out")).code == "url.redirects"
    assert web.count("/loop") == 6
    web.pages["/nowhere"] = web.page(302)
    error = await refused(guard(web), web.url("/nowhere"), tmp_path / "out")
    assert error.code == "url.redirects"


async def test_a_name_is_resolved_once_and_pinned(web: Any, tmp_path: Path) -> None:
    asked: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        asked.append(f"{host}:{port}")
        return ["127.0.0.1"]

    name = f"files.lab:{web.port}"
    web.pages["/a"] = web.page(body=b"x")
    allowed = Guard(frozenset({name}), SMALL, resolver=resolver)
    await allowed.fetch(f"http://{name}/a", tmp_path / "out")
    assert asked == [name]
    assert web.requests[0][1]["host"] == name


@pytest.mark.parametrize("bad", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1"])
async def test_one_private_address_among_public_ones_is_enough(bad: str, tmp_path: Path) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return ["8.8.8.8", bad]

    error = await refused(Guard(resolver=resolver), "http://rebind.example/", tmp_path / "out")
    assert error.code == "url.blocked_address"


async def test_redirect_to_a_name_with_a_private_address(web: Any, tmp_path: Path) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return ["192.168.1.1"]

    web.redirect("/a", "http://intranet/")
    error = await refused(guard(web, resolver=resolver), web.url("/a"), tmp_path / "out")
    assert error.code == "url.blocked_redirect"


async def test_localhost_by_name_is_blocked(tmp_path: Path) -> None:
    assert (
        await refused(Guard(), "http://localhost/", tmp_path / "o")
    ).code == "url.blocked_address"


async def test_unknown_host(tmp_path: Path) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    error = await refused(Guard(resolver=resolver), "http://nowhere.invalid/", tmp_path / "out")
    assert error.code == "url.unresolvable"
    assert not error.transient  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "transient"), [(404, False), (401, False), (204, False), (500, True), (429, True)]
)
async def test_status(web: Any, tmp_path: Path, status: int, transient: bool) -> None:
    web.pages["/a?sig=secret"] = web.page(status)
    error = await refused(guard(web), web.url("/a?sig=secret"), tmp_path / "out")
    assert (error.code, error.transient) == ("dataset.fetch_failed", transient)  # type: ignore[attr-defined]
    assert str(status) in error.message
    assert "secret" not in error.message


async def test_declared_and_actual_size(web: Any, tmp_path: Path) -> None:
    web.pages["/declared"] = web.page(content_length="100001")
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    web.pages["/actual"] = b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n" + 2 * chunk
    for path in ("/declared", "/actual"):
        error = await refused(guard(web), web.url(path), tmp_path / "out")
        assert error.code == "dataset.too_large"


async def test_compressed_bodies(web: Any, tmp_path: Path) -> None:
    two = gzip.compress(b"one,") + gzip.compress(b"two")
    web.pages["/gz"] = web.page(body=two, content_encoding="gzip")
    await guard(web).fetch(web.url("/gz"), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"one,two"
    web.pages["/plain.gz"] = web.page(body=two)
    await guard(web).fetch(web.url("/plain.gz"), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == two


async def test_bomb_and_broken_compression(web: Any, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    web.pages["/bomb"] = web.page(body=bomb, content_encoding="gzip")
    error = await refused(guard(web), web.url("/bomb"), tmp_path / "out")
    assert error.code == "dataset.decompressed_limit"
    for body, encoding, code in [
        (b"nonsense", "gzip", "dataset.fetch_failed"),
        (gzip.compress(b"cut off")[:-6], "gzip", "dataset.fetch_failed"),
        (b"x", "br", "url.encoding"),
    ]:
        web.pages["/odd"] = web.page(body=body, content_encoding=encoding)
        assert (await refused(guard(web), web.url("/odd"), tmp_path / "out")).code == code


async def test_a_body_that_breaks_off_is_no_success(web: Any, tmp_path: Path) -> None:
    web.pages["/cut"] = web.page(body=b"half", content_length="8")
    error = await refused(guard(web), web.url("/cut"), tmp_path / "out")
    assert (error.code, error.transient) == ("dataset.fetch_failed", True)  # type: ignore[attr-defined]


async def test_silence_and_slowness_end(web: Any, tmp_path: Path) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 x\r\ncontent-length: 99\r\n\r\n")
        while not web.release.is_set():
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait([web.waiting], timeout=0.05)

    web.waiting = asyncio.ensure_future(web.release.wait())
    web.held("/silent", b"0123456789")
    web.pages["/drip"] = drip
    silent = await refused(guard(web), web.url("/silent"), tmp_path / "out")
    assert (silent.code, silent.transient) == ("dataset.fetch_timeout", True)  # type: ignore[attr-defined]
    total = guard(web, Limits(total_s=0.3))
    slow = await refused(total, web.url("/drip"), tmp_path / "out")
    assert (slow.code, slow.transient) == ("dataset.fetch_timeout", False)  # type: ignore[attr-defined]
    web.release.set()
    await web.waiting


async def test_nobody_listens(tmp_path: Path) -> None:
    error = await refused(
        Guard(frozenset({"127.0.0.1:1"})), "http://127.0.0.1:1/", tmp_path / "out"
    )
    assert (error.code, error.transient) == ("dataset.fetch_failed", True)  # type: ignore[attr-defined]


async def test_tls_keeps_the_name(tls_web: Any, certificate: Path, tmp_path: Path) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    tls_web.pages["/a"] = tls_web.page(body=b"x")
    names = frozenset({f"files.lab:{tls_web.port}", f"other.lab:{tls_web.port}"})
    trusting = Guard(names, SMALL, ca_file=certificate, resolver=resolver)
    await trusting.fetch(f"https://files.lab:{tls_web.port}/a", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"x"
    other = f"https://other.lab:{tls_web.port}/a"
    assert (await refused(trusting, other, tmp_path / "out")).code == "url.tls"
    strict = Guard(names, SMALL, resolver=resolver)
    untrusted = f"https://files.lab:{tls_web.port}/a"
    assert (await refused(strict, untrusted, tmp_path / "out")).code == "url.tls"


async def test_no_way_down_from_https(tls_web: Any, certificate: Path, tmp_path: Path) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    tls_web.redirect("/a", f"http://files.lab:{tls_web.port}/b")
    down = Guard(
        frozenset({f"files.lab:{tls_web.port}"}), SMALL, ca_file=certificate, resolver=resolver
    )
    error = await refused(down, f"https://files.lab:{tls_web.port}/a", tmp_path / "out")
    assert error.code == "url.redirects"
