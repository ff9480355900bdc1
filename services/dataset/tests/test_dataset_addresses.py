from ipaddress import ip_address

import pytest

from stellwerk.errors import UserError
from stellwerk_dataset.addresses import blocked_kind, parse_url


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("file:///etc/passwd", "url.scheme"),
        ("gopher://example.org/", "url.scheme"),
        ("ftp://example.org/a", "url.scheme"),
        ("data:text/plain,hello", "url.scheme"),
        ("s3://bucket/key", "url.scheme"),
        ("//example.org/a", "url.scheme"),
        ("http:/\\169.254.169.254/", "url.malformed"),
        ("http://exa mple.org/", "url.malformed"),
        ("http://example.org/\r\nHost: x", "url.malformed"),
        ("http://" + "a" * 5000, "url.malformed"),
        ("http://[::1/", "url.malformed"),
        ("http://user:secret@example.org/", "url.userinfo"),
        ("http://example.org@127.0.0.1/", "url.userinfo"),
        ("http://example.org:22/", "url.port"),
        ("http://example.org:0/", "url.port"),
        ("http://example.org:99999/", "url.port"),
        ("http://example.org:x/", "url.port"),
        ("http:///path", "url.host"),
        ("http://-bad-/", "url.host"),
        ("http://\u0435xample.org/", "url.host"),
        ("http://\uff11\uff12\uff17.0.0.1/", "url.host"),
        ("http://%31%32%37.0.0.1/", "url.host"),
        ("http://1.2.3.4.5/", "url.host"),
        ("http://256.1.1.1/", "url.host"),
        ("http://0x1ffffffff/", "url.host"),
        ("http://09.1.1.1/", "url.host"),
        ("http://169.254.169.254/latest/meta-data/", "url.blocked_address"),
        ("http://127.0.0.1/", "url.blocked_address"),
        ("http://127.1/", "url.blocked_address"),
        ("http://2130706433/", "url.blocked_address"),
        ("http://0x7f000001/", "url.blocked_address"),
        ("http://0x7f.0.0.0x1/", "url.blocked_address"),
        ("http://0177.0.0.01/", "url.blocked_address"),
        ("http://017700000001/", "url.blocked_address"),
        ("http://127.0.0.1./", "url.blocked_address"),
        ("http://0/", "url.blocked_address"),
        ("http://10.1.2.3/", "url.blocked_address"),
        ("http://100.100.100.200/", "url.blocked_address"),
        ("http://[::1]/", "url.blocked_address"),
        ("http://[::]/", "url.blocked_address"),
        ("http://[::ffff:127.0.0.1]/", "url.blocked_address"),
        ("http://[::ffff:a9fe:a9fe]/", "url.blocked_address"),
        ("http://[fd00:ec2::254]/", "url.blocked_address"),
        ("http://[fe80::1]/", "url.blocked_address"),
        ("http://[fe80::1%25eth0]/", "url.host"),
    ],
)
def test_refused(url: str, code: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_url(url)
    assert caught.value.code == code
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("HTTP://Example.ORG", "http://example.org/"),
        ("https://example.org.:443/a?b=c#d", "https://example.org/a?b=c"),
        ("https://example.org:80/", "https://example.org:80/"),
        ("https://example.org/\u00fc b".replace(" ", "%20"), "https://example.org/%C3%BC%20b"),
        ("http://134744072/", "http://8.8.8.8/"),
        ("http://[2606:4700:0:0::1111]/", "http://[2606:4700::1111]/"),
    ],
)
def test_normalised(url: str, normal: str) -> None:
    assert parse_url(url).url == normal


def test_the_query_is_not_shown() -> None:
    assert "sig" not in parse_url("https://example.org/a?sig=secret").shown


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/a", "http://127.1:8080/a"])
def test_what_the_operator_lists_is_allowed(url: str) -> None:
    assert parse_url(url, frozenset({"127.0.0.1:8080"})).authority == "127.0.0.1:8080"
    with pytest.raises(UserError):
        parse_url(url.replace("8080", "8081"), frozenset({"127.0.0.1:8080"}))


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("8.8.8.8", None),
        ("2606:4700::1111", None),
        ("::ffff:8.8.8.8", None),
        ("64:ff9b::8.8.8.8", None),
        ("2002:808:808::1", None),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b:1::7f00:1", "reserved"),
        ("2002:7f00:1::1", "loopback"),
        ("2002:a9fe:a9fe::", "link-local"),
        ("::127.0.0.1", "loopback"),
        ("2606:4700::5efe:10.0.0.1", "private"),
        ("2001:0:1234::1", "reserved"),
        ("2001:db8::1", "documentation"),
        ("fec0::1", "private"),
        ("ff02::1", "multicast"),
        ("4000::1", "reserved"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("198.18.0.1", "benchmark"),
        ("168.63.129.16", "cloud-platform"),
        ("172.31.255.255", "private"),
        ("172.32.0.0", None),
    ],
)
def test_kind_of_address(address: str, kind: str | None) -> None:
    assert blocked_kind(ip_address(address)) == kind
