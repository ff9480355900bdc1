"""Data hosts that are gone: rules, mirrors, and what a run hears about it."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from dataset_client import Client
from pydantic import ValidationError

from stellwerk.errors import UserError
from stellwerk_dataset.app import build
from stellwerk_dataset.rewrites import BUILT_IN_MIRRORS, Rewrites, Rule
from stellwerk_dataset.settings import Settings

LECUN = "http://yann.lecun.com/exdb/mnist/"
NAMES = [
    f"{part}-{kind}-ubyte.gz"
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
]


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(gzip.compress(name.encode()))
    (tmp_path / "secret").write_text("not in the mirror")
    (folder / "link").symlink_to(tmp_path / "secret")
    return folder


def test_rules_in_order(mnist: Path) -> None:
    rewrites = Rewrites.load(mirrors={"mnist": mnist})
    first, *others = rewrites.copies(f"{LECUN}{NAMES[0]}?sv=2019")
    assert (first.shown, first.file) == ("the platform's mirror 'mnist'", mnist / NAMES[0])
    assert [each.url for each in others if each.url] == [
        f"https://ossci-datasets.s3.amazonaws.com/mnist/{NAMES[0]}",
        f"https://storage.googleapis.com/cvdf-datasets/mnist/{NAMES[0]}",
    ]
    for host in (
        "https://yann.lecun.com/exdb",
        "https://azureopendatastorage.blob.core.windows.net",
    ):
        assert next(rewrites.copies(f"{host}/mnist/{NAMES[1]}")).file == mnist / NAMES[1]
    assert [each.file for each in Rewrites.load().copies(f"{LECUN}{NAMES[0]}")] == [None, None]
    assert list(rewrites.copies("https://example.org/exdb/mnist/x.gz")) == []
    assert list(rewrites.copies(LECUN)) == []


@pytest.mark.parametrize("rest", ["../secret", "%2e%2e/secret", "link", "a/../../secret", "/etc/passwd", "%00", "nope.gz"])  # fmt: skip
def test_a_mirror_is_no_way_out_of_its_folder(mnist: Path, rest: str) -> None:
    copies = Rewrites.load(mirrors={"mnist": mnist}).copies(LECUN + rest)
    assert [each.file for each in copies if each.file] == []


def test_the_diabetes_sample_is_what_its_note_says() -> None:
    folder = BUILT_IN_MIRRORS["diabetes"]
    digest, name = (folder / "SHA256SUMS").read_text().split()
    data = (folder / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest
    assert len(data.decode().splitlines()) == 443
    url = f"https://www4.stat.ncsu.edu/~boos/var.select/{name}"
    assert next(Rewrites.load().copies(url)).file == (folder / name).resolve()


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("[]", "object"),
        ('{"rule": []}', "rule"),
        ('{"rules": [{"name": "x", "prefixes": ["ftp://x/"], "candidates": [{"mirror": "m"}]}]}', "rules.0.prefixes.0"),
        ('{"rules": [{"name": "x", "prefixes": ["http://x/"], "candidates": [{}]}]}', "exactly one"),
        ('{"rules": [{"name": "x", "prefixes": ["http://x/a"], "candidates": [{"mirror": "m"}]}]}', "prefixes"),
    ],
)  # fmt: skip
def test_a_wrong_operators_file_is_named(tmp_path: Path, content: str, hint: str) -> None:
    file = tmp_path / "rules.json"
    file.write_text(content)
    with pytest.raises(UserError, match="STELLWERK_URL_REWRITES") as caught:
        Rewrites.load(file)
    assert hint in caught.value.message


def test_a_rule_needs_candidates() -> None:
    with pytest.raises(ValidationError):
        Rule(name="x", prefixes=("http://x/",), candidates=())


async def test_a_run_reads_mirrors_and_hears_of_it(
    runtime_factory: Any, s3_settings: Any, client: Client, web: Any, mnist: Path, tmp_path: Path
) -> None:  # fmt: skip
    rules = {
        "name": "lab", "prefixes": ["http://gone.example.org/sets/"],
        "candidates": [{"mirror": "none"}, {"url": web.url("/new/")}],
    }  # fmt: skip
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"mirrors": {"mnist": str(mnist)}, "rules": [rules]}))
    web.pages["/new/a.csv"] = web.page(body=b"a,b\n")
    await runtime_factory(
        "dataset", Settings, build, data_dir=tmp_path / "dataset", egress_allow=[web.authority],
        url_rewrites=file, **s3_settings,
    )  # fmt: skip
    digits = await client.create(kind="urls", urls=[LECUN + name for name in NAMES])
    table = await client.create(kind="urls", urls=["http://gone.example.org/sets/a.csv"])
    lost = await client.create(kind="urls", urls=["http://gone.example.org/sets/b.csv"])
    await client.prepare(
        "run-1", mnist={"dataset": digits.dataset_id}, table={"dataset": table.dataset_id}
    )
    ready = await client.ready("run-1")
    assert ready.warnings == (
        "input 'mnist': http://yann.lecun.com/exdb/mnist/ (4 files) was read from the platform's mirror 'mnist'",
        f"input 'table': http://gone.example.org/sets/ (1 file) was read from {web.url('/new/')}",
    )
    manifest = await client.objects.get_manifest(ready.inputs["mnist"].manifest)
    assert {entry.path: await client.objects.get_bytes(entry.sha256) for entry in manifest.entries} == {
        f"yann.lecun.com/exdb/mnist/{name}": (mnist / name).read_bytes() for name in NAMES
    }  # fmt: skip
    assert str(tmp_path) not in ready.model_dump_json()

    web.pages["/new/b.csv"] = web.page(503)
    await client.prepare("run-2", x={"dataset": lost.dataset_id})
    failed = await client.failed("run-2")
    assert "gone.example.org" in failed.message
    assert "Tried before" in failed.message
    assert web.count("/new/b.csv") == 3  # a host that may come back is asked again
