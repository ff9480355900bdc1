"""A script that failed for a module it does not have: told where modules come from."""

import pytest

from stellwerk_gpu_executor.missing_modules import hint

PYTHON = 'Traceback (most recent call last):\n  File "/w/main.py", line 1, in <module>\n'


@pytest.mark.parametrize(
    ("log", "name"),
    [
        (PYTHON + "ModuleNotFoundError: No module named 'tensorflow'\n", "tensorflow"),
        ("[1] " + PYTHON + "[1] ModuleNotFoundError: No module named 'utils'\n\n", "utils"),
        (PYTHON + "ModuleNotFoundError: No module named 'keras.engine'\n", None),
        (PYTHON + "ModuleNotFoundError: No module named 'a'; 'a' is not a package\n", "a"),
        (PYTHON + "ModuleNotFoundError: No module named 'a'\nthen something else\n", None),
        (PYTHON + f"ModuleNotFoundError: No module named '{'a' * 101}'\n", None),
        ("ValueError: tensorflow\n", None),
        ("", None),
    ],
)
def test_the_end_of_the_log_decides(log: str, name: str | None) -> None:
    said = hint(log.encode())
    assert (said is None) == (name is None)
    if said is not None:
        assert said.startswith(f"there is no module {name!r} in its environment")
        assert "--package" in said
