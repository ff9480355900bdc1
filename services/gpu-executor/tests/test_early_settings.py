"""Which early variables a script sets itself, as far as its source tells."""

from pathlib import Path
from textwrap import dedent

import pytest

from stellwerk_gpu_executor.early_settings import (
    UnknowableError,
    applied,
    read_sources,
    settings_of,
)
from stellwerk_gpu_executor.warm_rules import READ_EARLY


def after(script: str, env: dict[str, str] | None = None, **helpers: str) -> dict[str, str]:
    return applied(env or {}, settings_of(dedent(script), helpers, READ_EARLY))


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("import os\nos.environ['KERAS_BACKEND'] = 'jax'\nimport keras", {"KERAS_BACKEND": "jax"}),
        ("from os import environ\nenviron['TZ'] = 'UTC'", {"TZ": "UTC"}),
        ("import os\nos.putenv('OMP_NUM_THREADS', '1')", {"OMP_NUM_THREADS": "1"}),
        (
            "import os\nos.environ.update({'JAX_ENABLE_X64': '1', 'MINE': 'x'}, TF_A='0')",
            {"JAX_ENABLE_X64": "1", "TF_A": "0"},
        ),
        ("import os\nos.environ['LEARNING_RATE'] = rate()", {}),
        ("import os\nprint(os.environ.get('KERAS_BACKEND'), os.environ['TF_CONFIG'])", {}),
        ("import keras, os\nos.environ['KERAS_BACKEND'] = 'jax'", {}),
        (
            "import tensorflow, os\nos.environ['KERAS_BACKEND'] = 'jax'\nimport keras",
            {"KERAS_BACKEND": "jax"},
        ),
        ("import os\nif x:\n  os.environ['KERAS_BACKEND'] = 'jax'\nimport keras", None),
        ("import os\ndef f():\n  if x: os.environ['JAX_A'] = 'jax'", None),
        (
            """
            import os
            def build():
                import keras
            def main():
                os.environ['KERAS_BACKEND'] = 'jax'
                import keras
            if __name__ == '__main__':
                os.environ['TF_A'] = '1'
                main()
            """,
            {"KERAS_BACKEND": "jax", "TF_A": "1"},
        ),
        ("import keras, os\ndef f():\n  os.environ['KERAS_BACKEND'] = 'jax'", {}),
        ("import os\nos.environ['TF_A'] = str(1)", None),
        ("import os\nos.environ['XLA_FLAGS'] += ' --x'", None),
        ("import numpy, os\nos.environ['OMP_NUM_THREADS'] = '1'", None),
        ("os.environ['KERAS_BACKEND'] = (", {}),
        ("import os\nfor k, v in {'KERAS_BACKEND': 'jax'}.items(): os.environ[k] = v", None),
        ("import os\nx = os.environ['TF_A'] = '0'", {"TF_A": "0"}),
        ("import os\nos.environ['TF_A'], x = '0', 1", None),
        ("import os\nos.environ['KERAS_' + 'BACKEND'] = 'jax'\nimport keras", None),
        ("import os\nos.environ.update(settings())\nimport keras", None),
        ("import os\nos.environ.update({**more, 'MINE': 'x'})", None),
        ("import os\nos.environ.update(**more)", None),
        ("import os\nos.environ |= {'TF_A': '0', 'MINE': '1'}", None),
        ("import os\nos.environ |= {'MINE': '1'}", {}),
        ("import os\nos.environ.pop('KERAS_BACKEND', None)\nimport keras", None),
        ("import os\ndel os.environ['TF_A'], x\nimport tensorflow", None),
        ("import os\ndel os.environ['MINE']\nos.environ.pop('TF_CONFIG')", {}),
        ("import os\nos.environ.clear()\nimport tensorflow", None),
        ("import os\nos.unsetenv('OMP_NUM_THREADS')\nimport numpy", None),
        ("import os\nprint({**os.environ}, dict(os.environ).update(x), d.pop(k), d.clear())", {}),
    ],
)
def test_what_a_script_sets(script: str, found: dict[str, str] | None) -> None:
    if found is not None:
        assert after(script) == found
        return
    with pytest.raises(UnknowableError, match=r"which (is|may be one that is) read early"):
        after(script)


def test_a_default_gives_way() -> None:
    script = "import os\nos.environ.setdefault('KERAS_BACKEND', 'torch')\nimport keras"
    assert after(script) == {"KERAS_BACKEND": "torch"}
    assert after(script, {"KERAS_BACKEND": "jax"}) == {"KERAS_BACKEND": "jax"}


def test_helpers_may_set_none_and_may_import() -> None:
    sets = "import os\nos.environ['KERAS_BACKEND'] = 'jax'\n"
    with pytest.raises(UnknowableError, match="config sets KERAS_BACKEND"):
        after("import config, keras", config=sets)
    with pytest.raises(UnknowableError, match="config sets a variable with a computed name"):
        after("import config, keras", config="import os\nos.environ[name()] = 'jax'\n")
    assert after("import config\n" + sets, config="x = 1") == {"KERAS_BACKEND": "jax"}
    with pytest.raises(UnknowableError, match="line 3"):
        after("import config\n" + sets.replace("KERAS_BACKEND", "XLA_A"), config="import jax.numpy")


def test_only_a_script_that_changes_its_path_may_import_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "train.py").write_text("import helper")
    (tmp_path / "src" / "helper.py").write_text("import lib.deep")
    (tmp_path / "src" / "other.py").write_text("y = 1")
    (tmp_path / "src" / "lib").mkdir()
    (tmp_path / "src" / "lib" / "deep.py").write_text("z = 1")
    (tmp_path / "src" / "deep" / "keras.py").write_text("")
    found = read_sources(tmp_path, "src/train.py")
    assert found.script == "import helper"
    assert dict(found.helpers) == {"helper": "import lib.deep", "lib": "z = 1"}
    assert found.names == {"train.py", "helper.py", "other.py", "deep", "lib"}
    (tmp_path / "src" / "helper.py").write_text("import sys; sys.path.append('deep')")
    assert "keras.py" in read_sources(tmp_path, "src/train.py").names


def test_the_example_of_the_readme_can_begin_warm() -> None:
    train = Path(__file__).parents[3] / "training" / "examples" / "keras-mnist" / "train"
    sources = read_sources(train, "keras_mnist.py")
    found = applied({}, settings_of(sources.script, sources.helpers, READ_EARLY))
    assert found == {"TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"}
