"""Loaded frameworks are out of sight until they are imported, and then say what they said."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from real_attempts import AGENT, launcher, read, request

from stellwerk_gpu_executor.forkserver import WarmServer
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_choice import Limits
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.tasks import TaskOwner
from stellwerk_shim import marks

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
    "sklearn/__init__.py": "import time; time.sleep(0.11)",  # long enough to be told at once
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
async def server(tmp_path: Path, env: dict[str, str]) -> AsyncIterator[WarmServer]:
    tasks = TaskOwner()
    pool = WarmPool(tmp_path / "warm", ("tensorflow", "keras"), Limits(), SystemClock(), tasks)
    recipe = recipe_of(sys.executable, env)
    await pool.ready(recipe)
    yield pool.take(recipe)
    pool.close()
    await tasks.close()


async def warm(
    tmp_path: Path, script: str, env: dict[str, str], server: WarmServer, **options: Any
) -> tuple[int | None, bytes]:
    async with launcher(tmp_path) as service:
        asked = request(tmp_path / "attempt", script, env=env, warm=server, **options)
        handle = await service.start(asked)
        record = await handle.wait()
        assert (handle.attempt.read_launch() or {})["warm"]
        return record.exit_code, read(handle.attempt.log)


def bare(work: Path, env: dict[str, str]) -> tuple[int, bytes]:
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=work,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("case", SAME)
async def test_as_bare(case: str, tmp_path: Path, env: dict[str, str], server: WarmServer) -> None:
    exit_code, output = await warm(tmp_path, SAME[case], env, server)
    assert (exit_code, output) == await asyncio.to_thread(bare, tmp_path / "attempt-work", env)


SETS = "import os\nos.environ[''.join(['KERAS_', 'BACKEND'])] = 'jax'\n"
AGAIN = {
    "at once": SETS + "import keras\nprint('went on', os.getcwd())",
    "in another folder": "import os\nos.chdir('/')\n" + SETS + "import keras\nprint(os.getcwd())",
    "by a helper": "import helper, keras\nprint(helper.__name__)",
    "after reading": (
        "import glob, io, json, os, socket, tempfile, mmap\n"
        "for name in glob.glob('/etc/*.conf') + os.listdir('.'): os.path.exists(name)\n"
        "with open('main.py', 'rb') as f: mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ).close()\n"
        "socket.socket().close(); io.StringIO().write('x'); json.loads('1')\n"
        "import uuid, urllib.request, concurrent.futures, sqlite3, requests\n" + SETS + "import keras"
    ),
    "after another framework": "import sklearn\n" + SETS + "import keras",
    "with handlers": "import signal as s\ns.signal(s.SIGTERM, print)\n" + SETS + "import keras\nprint(s.getsignal(15))",
    "what Python ignores": SETS + "import keras, signal as s\nprint(s.getsignal(s.SIGPIPE), s.pthread_sigmask(0, ()))",
}  # fmt: skip
TOO_LATE = {
    "said something": "print('said')\n",
    "made a folder": "import os\nos.mkdir('outputs')\n",
    "wrote a file": "open('deep/there', 'w').close()\n",
    "a connection": "import socket\nconnection = socket.socket()\n",
    "logged a value": (
        f"import os, sys\nsys.path.append({AGENT!r})\nfrom stellwerk_agent.run import Run\n"
        "Run.get_context().log('x', 1)\n"
    ),
    "a child ran": "import subprocess as s\ns.run(['true'])\n",
    "a folder elsewhere": "import os\nos.mkdir(os.environ['ELSEWHERE'] + '/made')\n",
    "a file moved elsewhere": "import os\nos.rename(os.environ['ELSEWHERE'] + '/old', os.environ['ELSEWHERE'] + '/new')\n",
    "an empty file elsewhere": "import os\nopen(os.environ['ELSEWHERE'] + '/new', 'x').close()\n",
    "a pipe at home": "import os\nos.mkfifo(os.environ['HOME'] + '/pipe')\n",
    "a message sent": (
        "import socket as s\na, b = s.socketpair(); a.close(); b.close()\n"
        "l = s.create_server(('127.0.0.1', 0)); c = s.create_connection(l.getsockname())\n"
        "c.sendall(b'x'); c.close(); l.close()\n"
    ),
    "a value logged and closed": (
        "import os, socket as s\nc = s.socket(s.AF_UNIX)\n"
        "c.connect(os.environ['STELLWERK_RUN_SOCKET']); c.close()\n"
    ),
    "nicer": "import os\nos.nice(3)\n",
    "fewer files": "import resource as r\nr.setrlimit(r.RLIMIT_NOFILE, (99, 99))\n",
    "fewer cores": "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n",
    "a child wrote": "import subprocess as s\ns.run('echo x > /dev/null', shell=True)\n",
    "a child lives": "import subprocess as s\nchild = s.Popen(['sleep', '30'])\n",
    "a thread": "import threading as t, time\nt.Thread(target=time.sleep, args=(1,), daemon=True).start()\n",
    "a fork": "import os\nif os.fork(): print(os.wait()[1])\n",
}  # fmt: skip


@pytest.mark.parametrize("case", AGAIN)
async def test_a_variable_that_was_read_already_begins_the_script_again(
    case: str, tmp_path: Path, env: dict[str, str], server: WarmServer
) -> None:
    (tmp_path / "attempt-work").mkdir()
    (tmp_path / "attempt-work" / "helper.py").write_text(SETS)
    wanted = env | {marks.WANTED: "1"}
    exit_code, output = await warm(tmp_path, AGAIN[case], wanted, server)
    assert (exit_code, output) == await asyncio.to_thread(bare, tmp_path / "attempt-work", env)
    assert b"keras on jax" in output
    (told,) = (each for each in records(tmp_path) if "cold" in each)
    assert told["cold"].startswith("KERAS_BACKEND was changed before ")


@pytest.mark.parametrize("case", TOO_LATE)
async def test_a_script_that_has_done_something_gets_an_error_not_another_result(
    case: str, tmp_path: Path, env: dict[str, str], server: WarmServer
) -> None:
    (tmp_path / "attempt-work" / "deep").mkdir(parents=True)
    (tmp_path / "attempt" / "home").mkdir(parents=True)
    (tmp_path / "old").touch()
    env = env | {"ELSEWHERE": str(tmp_path), "HOME": str(tmp_path / "attempt" / "home")}
    script = TOO_LATE[case] + SETS + "import keras\nprint('never')"
    exit_code, output = await warm(tmp_path, script, env, server)
    assert exit_code == 1
    assert b"KERAS_BACKEND was changed before keras was imported, but the run began" in output
    assert b"submit the run with warm='never'" in output
    assert b"never\n" not in output.replace(b"'never'", b"")
    assert not records(tmp_path)
    logged = b'"n":"x"' in read(tmp_path / "attempt" / "records.jsonl")
    assert logged == (case == "logged a value")


async def test_a_run_that_must_be_warm_does_not_begin_again(
    tmp_path: Path, env: dict[str, str], server: WarmServer
) -> None:
    script = SETS + "import keras\nprint('never')"
    exit_code, output = await warm(tmp_path, script, env, server, must_be_warm=True)
    assert (exit_code, b"was changed before keras was imported, but" in output) == (1, True)


async def test_bytecode_is_written_once_the_frameworks_are_there(
    tmp_path: Path, env: dict[str, str], server: WarmServer
) -> None:
    (tmp_path / "attempt-work").mkdir()
    for name in ("early", "late"):
        (tmp_path / "attempt-work" / f"{name}.py").touch()
    await warm(tmp_path, "import early, keras, late", env, server)
    written = (tmp_path / "attempt-work" / "__pycache__").iterdir()
    assert [path.name.partition(".")[0] for path in written] == ["late"]


def records(tmp_path: Path) -> list[dict[str, Any]]:
    lines = read(tmp_path / "attempt" / "records.jsonl").splitlines()
    return [record for record in map(json.loads, lines) if "cold" in record]


async def test_a_warning_that_is_an_error_now_is_raised_by_the_import(
    tmp_path: Path, env: dict[str, str], server: WarmServer
) -> None:
    script = (
        "import warnings\nwarnings.simplefilter('error')\n"
        "try: import tensorflow\nexcept FutureWarning as e: print('raised', e)"
    )
    exit_code, output = await warm(tmp_path, script, env, server)
    assert (exit_code, output.splitlines()[-1]) == (0, b"raised tensorflow is old")
