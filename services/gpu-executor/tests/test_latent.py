"""Loaded frameworks are out of sight until they are imported, and then say what they said."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from real_attempts import launcher, read, request

from stellwerk_gpu_executor.forkserver import ForkServer
from stellwerk_gpu_executor.warm import Limits, WarmPool
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.tasks import TaskOwner

PACKAGES = {
    "tensorflow/__init__.py": """
import ctypes, os, sys, warnings
print('tensorflow: to stdout'); print('tensorflow: to stderr', file=sys.stderr)
warnings.warn('tensorflow is old', FutureWarning)
os.write(2, b'from C\\n')
from tensorflow import python
""",
    "tensorflow/python.py": "value = 5",
    "keras/__init__.py": """
import os
import tensorflow as tf
print('keras on', os.environ.get('KERAS_BACKEND'))
from keras.src import layers
""",
    "keras/src/__init__.py": "",
    "keras/src/layers.py": "class Dense: pass",
}
SEEN = "print([n for n in sorted(sys.modules) if n.partition('.')[0] in ('keras', 'tensorflow')])"
SAME = {
    "both": "print('before')\nimport keras\nprint('after')\nimport tensorflow, keras",
    "one": f"import sys, tensorflow\n{SEEN}\nprint(tensorflow.python.value)",
    "neither": f"import sys\n{SEEN}\nprint(sys.meta_path[-1])",
    "a-submodule": f"import sys\nfrom keras.src.layers import Dense\nprint(Dense)\n{SEEN}",
    "quiet": "import warnings\nwarnings.simplefilter('ignore')\nimport tensorflow",
    "an-error": "import warnings\nwarnings.simplefilter('error')\nimport sys",
    "looked-up": "import importlib.util as u\nprint(u.find_spec('keras').origin, u.find_spec('x'))",
    "spec": "import keras\nprint(keras.__spec__.origin, keras.__path__, keras.__spec__.parent)",
    "reloaded": "import importlib, keras\nimportlib.reload(keras)",
    "in-a-child": (
        "import multiprocessing as mp\ndef f(_):\n  import keras\n  return keras.__name__\n"
        "if __name__ == '__main__':\n  import keras\n"
        "  with mp.get_context('fork').Pool(1) as p: print(p.map(f, [1]))"
    ),
    "set-later": "import keras, os\nos.environ['KERAS_BACKEND'] = 'jax'\nimport tensorflow",
}


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    site = tmp_path_factory.mktemp("site")
    for name, text in PACKAGES.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    return {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(site)}


@pytest_asyncio.fixture
async def server(tmp_path: Path, env: dict[str, str]) -> AsyncIterator[ForkServer]:
    tasks = TaskOwner()
    pool = WarmPool(tmp_path / "warm", ("tensorflow", "keras"), Limits(), SystemClock(), tasks)
    recipe = recipe_of(sys.executable, env)
    await pool.ready(recipe)
    yield pool.take(recipe)
    pool.close()
    await tasks.close()


async def warm(
    tmp_path: Path, script: str, env: dict[str, str], server: ForkServer
) -> tuple[int | None, bytes]:
    async with launcher(tmp_path) as service:
        asked = request(tmp_path / "attempt", script, env=env, warm=server)
        handle = await service.start(asked)
        record = await handle.wait()
        assert (handle.attempt.read_launch() or {})["warm"]
        return record.exit_code, read(handle.attempt.log)


@pytest.mark.parametrize("case", SAME)
async def test_as_bare(case: str, tmp_path: Path, env: dict[str, str], server: ForkServer) -> None:
    exit_code, output = await warm(tmp_path, SAME[case], env, server)
    bare = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "main.py"],
        cwd=tmp_path / "attempt-work",
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert (exit_code, output) == (bare.returncode, bare.stdout)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "KERAS_BACKEND",
            b"KERAS_BACKEND was changed before keras was imported, but the run began",
        ),
        ("JAX_ENABLE_X64", b"submit the run with warm='never'"),
    ],
)
async def test_a_variable_that_was_read_already_is_an_error_not_another_result(
    tmp_path: Path, env: dict[str, str], server: ForkServer, name: str, words: bytes
) -> None:
    script = f"import os\nos.environ[''.join({list(name)})] = 'jax'\nimport keras\nprint('never')"
    exit_code, output = await warm(tmp_path, script, env, server)
    assert exit_code == 1
    assert words in output
    assert b"never\n" not in output.replace(b"'never'", b"")


async def test_a_warning_that_is_an_error_now_is_raised_by_the_import(
    tmp_path: Path, env: dict[str, str], server: ForkServer
) -> None:
    script = (
        "import warnings\nwarnings.simplefilter('error')\n"
        "try: import tensorflow\nexcept FutureWarning as e: print('raised', e)"
    )
    exit_code, output = await warm(tmp_path, script, env, server)
    assert (exit_code, output.splitlines()[-1]) == (0, b"raised tensorflow is old")
