"""A script that failed for a path of the machine: told what to do, and never what is there."""

import pytest

from stellwerk_gpu_executor.hidden_paths import hint

PYTHON = 'Traceback (most recent call last):\n  File "/w/main.py", line 1\nFileNotFoundError: [Errno 2] No such file or directory: {}\n'


@pytest.mark.parametrize(
    ("log", "path"),
    [
        (PYTHON.format("'/data/train.csv'"), "/data/train.csv"),
        (PYTHON.format("b'/data/a b'"), "/data/a b"),
        ("cat: /data/x: No such file or directory\n", "/data/x"),
        ("ls: cannot access '/mnt/x': No such file or directory", "/mnt/x"),
        ("NotFoundError: /mnt/x; No such file or directory [Op:ReadFile]", "/mnt/x"),
        ("[1] " + PYTHON.format("'/data/x'"), "/data/x"),
        (PYTHON.format("'data/x'"), None),
        (PYTHON.format("'/usr/share/x'"), None),
        (PYTHON.format("'/tmp/x'"), None),
        (PYTHON.format("'/attempts/r-1/work/x'"), None),
        (PYTHON.format("'/attempts/r-1/../x'"), None),
        (PYTHON.format("'/shown/x'"), None),
        (PYTHON.format("'/data/x'") + "then something else\n" * 20, None),
        ("ValueError: /data/x\n", None),
        ("", None),
    ],
)
def test_only_the_text_of_the_path_decides(log: str, path: str | None) -> None:
    said = hint(log.encode(), ["/attempts/r-1", "/shown"])
    assert (said is None) == (path is None)
    if path is not None:
        assert said is not None
        assert said.startswith(f"{path!r} was not found; a sandboxed run sees")
        assert "make it a dataset" in said
        assert "STELLWERK_SANDBOX_READABLE" in said


def test_in_a_container_and_bounded() -> None:
    log = PYTHON.format(f"'/data/{'x' * 3000}'").encode() + b"\xff"
    said = hint(log, [], container=True)
    assert said is not None
    assert "run in a container" in said
    assert "STELLWERK_SANDBOX_READABLE" not in said
    assert len(said) < 500
