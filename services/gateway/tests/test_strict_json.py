"""Which bodies are JSON that everybody reads the same way."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk_gateway.strict_json import MAX_DEPTH, JsonError, check_json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(
        st.text(alphabet=st.characters(exclude_categories=["Cs"])), inner, max_size=5
    ),
    max_leaves=20,
)  # fmt: skip


@given(values, st.booleans())
def test_what_json_dumps_writes_is_accepted(value: object, ascii_only: bool) -> None:
    check_json(json.dumps(value, ensure_ascii=ascii_only).encode())


@pytest.mark.parametrize(
    ("body", "offset"),
    [
        (b'{"a": 1} x', 9),
        (b'{"a": 1', 7),
        (b"{'a': 1}", 1),
        ('{"\u00fc": 1} x'.encode(), 10),
        (b'\xef\xbb\xbf{"a": 1}', 0),
        ('{"a": 1}'.encode("utf-16"), 0),
        ('{"a": 1}'.encode("utf-16-le"), 1),
        (b'{"a": "\xff"}', 7),
        (rb'{"a": "x\ud800"}', 8),
        (rb'{"a": "\ud800 \ud83d\ude00"}', 7),
        (rb'{"a": "\ud83d\ude00\udc00"}', 19),
        (b'{"a": 1, "a": 2}', None),
        (b'[{"a": {"b": 1, "b": 1}}]', None),
        (b'{"a": NaN}', None),
        (b"[-Infinity]", None),
        (b"[1e999]", None),
        (b"[" + b"9" * 10_000 + b"]", None),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), None),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, None),
        (b"", 0),
    ],
)
def test_what_could_be_misread_is_refused(body: bytes, offset: int | None) -> None:
    with pytest.raises(JsonError) as caught:
        check_json(body)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    "body",
    [
        rb'{"a": "\ud83d\ude00"}',
        rb'{"a": "\\ud800"}',
        rb'{"a": "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}',
        rb'{"a": "\"[{"}',
        b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        b'[{"a": 1}, {"a": 1}]',
        b' {"a":\r\n\t1.5e3} ',
    ],
)
def test_unusual_but_clear_bodies_are_accepted(body: bytes) -> None:
    check_json(body)


def test_a_large_manifest_is_checked_in_reasonable_time() -> None:
    rows = [{"path": f"data/{n}.bin", "size": n, "sha256": "0" * 64} for n in range(100_000)]
    body = json.dumps({"manifest": {"entries": rows}}).encode()
    assert len(body) > 10_000_000
    check_json(body)
