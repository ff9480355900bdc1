"""The public names of the SDK, and what importing costs."""

import subprocess
import sys
from pathlib import Path

import pytest

import stellwerk

HEAVY = ("httpx2", "pydantic", "yaml", "pathspec", "stellwerk_agent")


@pytest.mark.parametrize("name", stellwerk.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(stellwerk, name).__name__ == name


def test_lists_agree() -> None:
    assert sorted(stellwerk.__all__) == sorted(stellwerk._HOME_OF)
    assert set(stellwerk.__all__) <= set(dir(stellwerk))


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Wrokspace'"):
        stellwerk.Wrokspace  # noqa: B018


@pytest.mark.parametrize("line", ["import stellwerk", "import stellwerk.cli"])
def test_import_is_light(line: str) -> None:
    code = f"import sys; {line}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_python_without_the_sdks_packages_is_told_what_to_add() -> None:
    """As in a run whose environment has nothing of Stellwerk in it."""
    source = Path(stellwerk.__file__).parents[1]
    code = f"import sys; sys.path.append({str(source)!r}); from stellwerk import Run"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: stellwerk.Run needs more than this Python has: '")
    assert "Put `stellwerk` among the pip packages" in last
