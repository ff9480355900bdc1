"""Environment and CondaDependencies as v1 code uses them, without a platform."""

from pathlib import Path

import pytest

from azureml.core import Environment
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.container_registry import ContainerRegistry
from azureml.core.environment import DEFAULT_CPU_IMAGE, DockerBuildContext
from azureml.core.environment import CondaDependencies as SecondPath
from azureml.core.runconfig import DEFAULT_CPU_IMAGE as SECOND_IMAGE
from azureml.core.runconfig import CondaDependencies as ThirdPath
from azureml.exceptions import UserErrorException


def test_one_class_under_every_import_path() -> None:
    assert SecondPath is CondaDependencies
    assert ThirdPath is CondaDependencies
    assert SECOND_IMAGE == DEFAULT_CPU_IMAGE


def test_a_new_environment_has_v1s_defaults() -> None:
    env = Environment("mine")
    assert env.environment_variables == {"EXAMPLE_ENV_VAR": "EXAMPLE_VALUE"}
    assert env.docker.base_image == DEFAULT_CPU_IMAGE
    assert env.python.user_managed_dependencies is False
    assert env.python.interpreter_path == "python"
    assert env.python.conda_dependencies.pip_packages == ["azureml-defaults"]
    assert env.python.conda_dependencies.conda_channels == ["anaconda", "conda-forge"]
    assert env.version is None
    definition = env.definition()
    assert definition.pip_packages == ("azureml-defaults",)
    assert definition.python == ">=3.11"
    assert definition.image is None, "the default image is nobody's wish"
    assert '"name": "mine"' in repr(env)


@pytest.mark.parametrize(
    ("place", "name", "meant"),
    [
        ("", "pyton", "python"),
        ("docker", "base_imag", "base_image"),
        ("docker", "enabeld", "enabled"),
        ("python", "user_managed", "user_managed_dependencies"),
        ("spark", "package", "packages"),
    ],
)
def test_typos_are_refused(place: str, name: str, meant: str) -> None:
    section = getattr(Environment("x"), place) if place else Environment("x")
    with pytest.raises(AttributeError, match=rf"no attribute '{name}'; did you mean '{meant}'"):
        setattr(section, name, 1)
    with pytest.raises(AttributeError):
        getattr(section, name)


def test_conda_dependencies_can_be_changed() -> None:
    conda = CondaDependencies.create(
        pip_packages=["azureml-dataset-runtime[pandas,fuse]", "keras<=2.3.1", "azureml-core==1.2"],
        conda_packages=["scikit-learn=0.22.1", "python=3.6.2"],
    )
    assert conda.pip_packages == [
        "azureml-defaults~=1.61.0", "azureml-dataset-runtime[pandas,fuse]~=1.61.0", "keras<=2.3.1", "azureml-core==1.2",
    ]  # fmt: skip
    assert conda.get_python_version() == "3.6.2"
    conda.add_pip_package("six")
    conda.remove_pip_package("Keras")
    conda.remove_pip_package("azureml-core")
    conda.remove_conda_package("scikit-learn")
    conda.add_channel("pytorch")
    conda.remove_channel("anaconda")
    conda.set_python_version("3.8")
    conda.add_tensorflow_conda_package(core_type="gpu", version="2.0")
    conda.add_tensorflow_pip_package()
    with pytest.raises(UserErrorException, match="core_type"):
        conda.add_tensorflow_pip_package("tpu")
    assert conda.conda_packages == ["tensorflow-gpu=2.0"]
    assert conda.serialize_to_string() == (
        "channels:\n- conda-forge\n- pytorch\ndependencies:\n- python=3.8\n- tensorflow-gpu=2.0\n"
        "- pip:\n  - azureml-defaults~=1.61.0\n  - azureml-dataset-runtime[pandas,fuse]~=1.61.0\n  - six\n  - tensorflow\n"
    )
    plain = CondaDependencies.create(pip_packages=["azureml-sdk"], pin_sdk_version=False)
    assert plain.pip_packages == ["azureml-defaults", "azureml-sdk"]
    for refused in (
        lambda: conda.set_pip_option("--pre"),
        lambda: conda.set_pip_index_url("x"),
        lambda: CondaDependencies.create(pip_indexurl="x"),
    ):
        with pytest.raises(UserErrorException, match="operator"):
            refused()


def test_files_there_and_back(tmp_path: Path) -> None:
    conda = CondaDependencies()
    conda.add_conda_package("numpy")
    name = conda.save_to_file(base_directory=str(tmp_path), conda_file_path="my.yml")
    assert name == "my.yml"
    env = Environment.from_conda_specification("e", str(tmp_path / "my.yml"))
    assert env.python.conda_dependencies.conda_packages == ["numpy"]
    other = Environment("other")
    other.python.conda_dependencies_file = str(tmp_path / "my.yml")
    assert other.python.conda_dependencies.pip_packages == ["azureml-defaults"]

    (tmp_path / "bare.yml").write_text("dependencies: [pip, {pip: [six]}]\n")
    bare = Environment.from_conda_specification("bare", str(tmp_path / "bare.yml"))
    assert bare.python.conda_dependencies.python_version == ">=3.11"
    (tmp_path / "requirements.txt").write_text("six==1.16.0\n# no more\n")
    pip = Environment.from_pip_requirements("pip", str(tmp_path / "requirements.txt"))
    assert pip.python.conda_dependencies.pip_packages == ["six==1.16.0"]

    env.docker.base_image = "acme/image:1"
    env.environment_variables["A"] = "b"
    env.save_to_directory(str(tmp_path / "saved"))
    with pytest.raises(UserErrorException, match="overwrite"):
        env.save_to_directory(str(tmp_path / "saved"))
    env.save_to_directory(str(tmp_path / "saved"), overwrite=True)
    loaded = Environment.load_from_directory(str(tmp_path / "saved"))
    assert loaded.definition() == env.definition()
    assert loaded.name == "e"
    with pytest.raises(UserErrorException, match="save_to_directory"):
        Environment.load_from_directory(str(tmp_path))


def test_clones_are_their_own(tmp_path: Path) -> None:
    env = Environment("first")
    env.docker.base_image = "acme/image:1"
    other = env.clone("second")
    other.python.conda_dependencies.add_pip_package("six")
    assert type(other) is Environment
    assert other.python.interpreter_path == "python"
    assert (env.name, other.name, other.docker.base_image) == ("first", "second", "acme/image:1")
    assert env.python.conda_dependencies.pip_packages == ["azureml-defaults"]


def test_images_are_recorded(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN pip install six\n")
    (tmp_path / "requirements.txt").write_text("six\n")
    image = Environment.from_docker_image("i", "fastdotai/fastai:2021-02-11", ContainerRegistry())
    assert image.definition().image == "fastdotai/fastai:2021-02-11"
    assert image.definition().user_managed
    file = Environment.from_dockerfile(
        "d", str(tmp_path / "Dockerfile"), pip_requirements=str(tmp_path / "requirements.txt")
    )
    assert "pip install six" in str(file.definition().dockerfile)
    assert file.definition().pip_packages == ("six",)
    assert not file.definition().user_managed
    file.docker.base_image = "acme/image:1"
    with pytest.raises(UserErrorException, match="base_image and base_dockerfile"):
        file.definition()
    context = DockerBuildContext("a" * 64, "docker/Dockerfile")
    folder = Environment.from_docker_build_context("c", context)
    assert folder.definition().build_context == context.as_defined()
    assert folder.docker.base_image is None
    again = folder.clone("again")
    assert again.docker.build_context == context
    with pytest.raises(UserErrorException, match="from_conda_specification"):
        Environment.from_existing_conda_environment("e", "base")
