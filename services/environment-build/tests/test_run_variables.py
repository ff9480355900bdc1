"""Which variables of packages runs take over, and what is said of the others. Pure."""

import json
from pathlib import Path

from stellwerk_environment_build.run_variables import MOST_NAMED, activated


def _said(*names: str) -> tuple[dict[str, str], tuple[str, ...]]:
    answer = {"variables": dict.fromkeys(names, "1"), "failed": False}
    return activated(json.dumps(answer).encode(), Path("/e"))


def test_warnings_of_many_variables_are_few() -> None:
    variables, warnings = _said("A", *(f"PYTHONPATH{number}" for number in range(6_000)))
    assert variables == {"A": "1"}
    assert len(warnings) == MOST_NAMED + 1
    assert "5980 more variables" in warnings[-1]


def test_what_is_no_name_is_counted_and_not_told() -> None:
    variables, warnings = _said("LD_PRELOAD", "LD_PRELOAD\n\x1b", "LD_AUDIT" + "X" * 9_000)
    assert variables == {}
    assert len(warnings) == 2
    assert "LD_PRELOAD," in warnings[0]
    assert "2 more variables" in warnings[1]
