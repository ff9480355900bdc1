"""Substituted environments, built for real; the tutorial's with TensorFlow and Keras."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from stellwerk.curated import curated_environments
from stellwerk.environment_spec import from_conda_yaml, from_packages
from stellwerk.override_table import with_file
from stellwerk_environment_build.build_log import BuildLog
from stellwerk_environment_build.builder import Builder
from stellwerk_environment_build.interpreters import find_interpreters
from stellwerk_environment_build.settings import Settings
from stellwerk_environment_build.uv_command import IndexOptions

MakeBuilder = Callable[..., Builder]

TUTORIAL = """
channels: [conda-forge]
dependencies:
- python=3.6.2
- pip:
  - h5py<=2.10.0
  - azureml-defaults
  - tensorflow-gpu==2.0.0
  - keras<=2.3.1
  - matplotlib
"""

OLD_CODE = """
from keras.utils import np_utils
from keras.layers.core import Activation
from keras.layers.convolutional import Conv2D
from keras.engine.topology import Layer
from keras.engine import Model
from keras.backend.tensorflow_backend import set_session
import json, keras, h5py, matplotlib, numpy, pydantic, tensorflow
from keras import backend as K
from keras.layers import Dense
from keras.models import Sequential
from keras.optimizers import SGD, Adam, RMSprop

assert np_utils.to_categorical([1], 2).tolist() == [[0.0, 1.0]]
assert issubclass(Activation, Layer) and issubclass(Sequential, Model)
rates = [float(K.get_value(cls(lr=0.125).learning_rate)) for cls in (RMSprop, SGD, Adam)]
decayed = SGD(lr=0.5, decay=0.25)
plain = float(K.get_value(RMSprop(learning_rate=0.25, decay=0.0).lr))
moved = []
for optimizer in (SGD(lr=0.5), decayed):
    model = Sequential([Dense(1, input_shape=(1,), use_bias=False, kernel_initializer="ones")])
    model.compile(loss="mse", optimizer=optimizer)
    model.fit(numpy.ones((4, 1)), numpy.zeros((4, 1)), batch_size=1, shuffle=False, verbose=0)
    moved.append(float(model.get_weights()[0][0, 0]))
model.save_weights("model.h5")
with h5py.File("model.h5") as file:
    layers = len(file.keys())
print(json.dumps({
    "keras": keras.__version__, "tensorflow": tensorflow.__version__, "rates": rates,
    "decay": decayed.get_config()["decay"], "plain": plain, "moved": moved, "layers": layers,
}))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_old_keras_code_runs_in_the_tutorials_environment(
    make_builder: MakeBuilder, tmp_path: Path
) -> None:
    builder = make_builder(index=IndexOptions(), environ=os.environ)
    builder._interpreters = {each.version: each.path for each in await find_interpreters()}
    spec, identity = builder.identify(from_conda_yaml(TUTORIAL))
    log: list[str] = []
    result = await builder.build(spec, identity, log.append)
    text = "\n".join(log)
    assert "Warning: tensorflow-gpu==2.0.0 -> tensorflow-cpu==2.15.*: " in text
    assert "Warning: Keras 2.11 to 2.15 take lr= and ignore it" in text

    python = builder.cache.python(result.ready.env_id)
    done = subprocess.run(
        [python, "-c", OLD_CODE], check=True, capture_output=True, text=True, cwd=tmp_path, env={}
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["keras"].startswith("2.15.")
    assert said["tensorflow"].startswith("2.15.")
    assert said["rates"] == [0.125] * 3
    assert said["plain"] == 0.25
    assert said["decay"] == 0.25
    # w -= rate * 2w: a rate of 1/2 lands on 0 at once, the default of 0.01 would leave 0.92
    assert said["moved"][0] == pytest.approx(0.0)
    assert said["layers"] >= 1
    assert "deprecated" not in done.stderr


@pytest.mark.parametrize("name", sorted(curated_environments()))
async def test_curated_environments_solve_to_what_their_files_say(
    name: str, make_builder: MakeBuilder, tmp_path: Path
) -> None:
    builder = make_builder(index=IndexOptions(), environ=os.environ)
    definition = curated_environments()[name].definition
    spec, identity = builder.identify(definition)
    work = tmp_path / "work"
    work.mkdir()
    lines = BuildLog(lambda _line: None)
    lock = await (await builder._construction(spec, identity, lines, work)).resolve()
    pinned = {each.partition(" ;")[0] for each in definition.constraints}
    assert set(lock.pins) <= pinned
    assert lock.text.count("--hash=sha256:") >= len(lock.pins)


async def test_a_mend_is_a_module_that_only_waits(
    make_builder: MakeBuilder, make_wheel: Callable[..., Path], tmp_path: Path
) -> None:
    make_wheel("keras", "2.15.0", {"keras/__init__.py": "x = 1\n"})
    make_wheel("numpy", "1.23.5")
    make_wheel("tensorflow_cpu", "2.15.1")
    builder = make_builder()
    mended, plain = [
        await builder.build(*builder.identify(from_packages([pin])), lambda _line: None)
        for pin in ("keras==2.3.1", "keras==2.15.0")
    ]
    loaded = [
        subprocess.run(
            [builder.cache.python(each.ready.env_id), "-c", "import sys; print(*sys.modules)"],
            check=True, capture_output=True, text=True, env={},
        ).stdout.split()
        for each in (mended, plain)
    ]  # fmt: skip
    assert set(loaded[0]) - set(loaded[1]) == {
        "stellwerk_mend_keras_lr",
        "stellwerk_mend_keras_modules",
    }
    assert mended.ready.env_id != plain.ready.env_id


async def test_the_operators_file_counts(make_builder: MakeBuilder, tmp_path: Path) -> None:
    file = tmp_path / "overrides.yaml"
    file.write_text('provided: {"acme-sdk": {requires: ["six==1.17.0"]}}')
    settings = Settings(build_overrides=file, build_accelerator="cuda")
    assert settings.accelerator == "cuda"
    builder = make_builder(overrides=with_file(file))
    spec, identity = builder.identify(from_packages(["acme-sdk"]))
    assert "six==1.17" in spec.requirements
    assert make_builder().identify(from_packages(["acme-sdk"]))[1] != identity
    file.write_text("provided: [")
    with pytest.raises(ValidationError, match="line 1"):
        Settings(build_overrides=file)
