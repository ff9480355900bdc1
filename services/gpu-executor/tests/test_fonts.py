"""Matplotlib's folder is each process's own; its list of fonts goes from warm processes to runs."""

import ast
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from assignments import Watcher, assigned, publish, scheduler, start

from stellwerk.events import AttemptExited
from stellwerk_gpu_executor.fonts import FOLDER, Fonts
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_choice import Limits
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_kit.bus import Bus
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.settings import ServiceSettings
from stellwerk_kit.tasks import TaskOwner
from stellwerk_kit.testing import wait_until
from stellwerk_kit.testing.host import lacking

LIST = "fontlist-v3.9.json"


def home(folder: Path, content: str | None = None) -> Path:
    (folder / FOLDER).mkdir(parents=True)
    if content is not None:
        (folder / FOLDER / LIST).write_text(content)
    return folder


def test_a_list_goes_on_to_homes_and_is_theirs(tmp_path: Path) -> None:
    fonts = Fonts()
    fonts.learn("python", home(tmp_path / "warm", "list"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        fonts.lay("python", tmp_path / name)
        file = tmp_path / name / FOLDER / LIST
        assert (file.read_text(), file.stat().st_nlink) == ("list", 1)
        file.write_text("changed by a run")
    fonts.lay("another", tmp_path)
    assert not (tmp_path / FOLDER).exists()


def test_no_link_is_followed(tmp_path: Path) -> None:
    fonts = Fonts()
    (tmp_path / "secret").write_text("key")
    (home(tmp_path / "bad") / FOLDER / LIST).symlink_to(tmp_path / "secret")
    fonts.learn("python", tmp_path / "bad")
    fonts.lay("python", tmp_path)
    assert not (tmp_path / FOLDER).exists()
    fonts.learn("python", home(tmp_path / "warm", "list"))
    (home(tmp_path / "run") / FOLDER / LIST).symlink_to(tmp_path / "secret")
    with pytest.raises(FileExistsError):
        fonts.lay("python", tmp_path / "run")
    assert (tmp_path / "secret").read_text() == "key"


def test_a_home_of_its_own_is_no_other_recipe(tmp_path: Path) -> None:
    recipes = {
        recipe_of("python", {"HOME": f"/{each}", "MPLCONFIGDIR": f"/{each}/{FOLDER}"})
        for each in "ab"
    }
    assert len(recipes) == 1
    assert recipe_of("python", {"HOME": "/a", "MPLCONFIGDIR": "/b"}) not in recipes


async def test_a_warm_process_has_it_in_its_own_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "import os\nplace = os.environ['MPLCONFIGDIR']\nos.makedirs(place)\n"
    module += f"open(place + '/{LIST}', 'w').write(place)\n"
    (tmp_path / "plots.py").write_text(module)
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    tasks = TaskOwner()
    pool = WarmPool(tmp_path / "warm", ("plots",), Limits(), SystemClock(), tasks)
    try:
        await pool.ready(recipe_of(sys.executable, variables))
        pool.fonts.lay(sys.executable, home(tmp_path / "run"))
    finally:
        pool.close()
        await tasks.close()
    place = Path((tmp_path / "run" / FOLDER / LIST).read_text())
    assert (place.parent.parent, place.name) == (tmp_path / "warm", FOLDER)


WRITABLE = """
import ast
import os
fields = [line.split() for line in open('/proc/self/mountinfo')]
own = os.path.dirname(os.getcwd())
print(sorted(f[4].replace(own, 'OWN') for f in fields if 'rw' in f[5].split(',')))
print(os.environ['MPLCONFIGDIR'].replace(own, 'OWN'))
"""


async def test_a_run_can_write_nothing_that_is_not_its_own(
    runtime_factory: Any, bus: Bus, s3_settings: Any, tmp_path: Path
) -> None:
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path)
    await publish(bus, assigned("run1", WRITABLE), 1)
    (exited,) = await wait_until(lambda: watch.of(AttemptExited), 20)
    assert exited.exit.succeeded, watch.log.decode()
    places, folder = watch.log.decode().splitlines()
    if "'/proc'" not in places:
        lacking("no sandbox here")
    own = {"OWN", "/proc", "/dev/shm", "/dev/pts", "/tmp"}
    others = [
        each
        for each in ast.literal_eval(places)
        if each not in own
        and not each.startswith("OWN/")
        and each != str(tmp_path / "executor/attempts")
    ]
    assert others == []
    assert folder == f"OWN/home/{FOLDER}"
