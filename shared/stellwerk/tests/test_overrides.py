"""What old requirements become: the built-in table, its mergers, and the rules of exchange."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import stellwerk
from stellwerk.environment_spec import (
    EnvironmentDefinition,
    InvalidEnvironment,
    NormalisedSpec,
    env_id,
    from_conda_yaml,
    from_packages,
    normalise,
)
from stellwerk.errors import UserError
from stellwerk.override_apply import substitute
from stellwerk.override_table import Accelerator, builtin, with_file
from stellwerk.version_ranges import minor_of, overlap, reaches

PYTHONS = ("3.11.7", "3.13.0", "3.12.1", "3.8.18", "3.6.15")
SDK = {"click", "httpx2", "packaging", "pathspec", "pydantic", "pyyaml"}

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


def normal(*packages: str, accelerator: Accelerator = "cpu") -> NormalisedSpec:
    return normalise(from_packages(packages), available_pythons=PYTHONS, accelerator=accelerator)


def own(spec: NormalisedSpec) -> set[str]:
    """Requirements without those of the SDK."""
    return {each for each in spec.requirements if Requirement(each).name not in SDK}


def test_the_tutorials_environment_becomes_keras_2_15_on_python_3_11() -> None:
    spec = normalise(from_conda_yaml(TUTORIAL), available_pythons=PYTHONS)
    assert spec.python == "3.11.7"
    assert own(spec) == {
        "tensorflow-cpu==2.15.*", "keras==2.15.*", "h5py==3.8.*", "matplotlib", "numpy<1.24,<2,>=1.23.5",
    }  # fmt: skip
    assert {Requirement(each).name for each in spec.requirements} >= SDK
    assert spec.mends == ("keras-lr", "keras-modules")
    said = "\n".join(spec.warnings)
    for exchange in (
        "python 3.6.2 -> 3.11.7: ",
        "tensorflow-gpu==2.0.0 -> tensorflow-cpu==2.15.*: ",
        "keras<=2.3.1 -> keras==2.15.*: ",
        "h5py<=2.10.0 -> h5py==3.8.*: ",
        "azureml-defaults -> click>=8.1, ",
        "lr sets learning_rate",
    ):
        assert exchange in said
    strict = from_conda_yaml(TUTORIAL).model_copy(update={"strict": True})
    with pytest.raises(InvalidEnvironment) as caught:
        normalise(strict, available_pythons=PYTHONS)
    assert caught.value.code == "env.strict"
    for name in (
        "python 3.6.2",
        "tensorflow-gpu==2.0.0",
        "keras<=2.3.1",
        "h5py<=2.10.0",
        "azureml",
    ):
        assert name in caught.value.hint


def test_a_gpu_machine_gets_tensorflow_with_cuda() -> None:
    assert "tensorflow[and-cuda]==2.15.*" in own(normal("tensorflow-gpu==2.2", accelerator="cuda"))


@pytest.mark.parametrize(
    "packages",
    [
        ("tensorflow>=2.0", "keras>=2.3"),
        ("numpy==1.26.4", "pandas<3"),
        ("scikit-learn~=1.5", "h5py<=3.11", "pillow!=6.2.1"),
        ("tensorflow==2.15.1", "keras==2.15.0"),
        ("somebody-elses==0.0.1",),
        ("numpy==1.16.4 ; python_version < '3.7'",),
    ],
)
def test_what_can_be_installed_stays(packages: tuple[str, ...]) -> None:
    spec = normal(*packages)
    assert spec.warnings == ()
    assert {Requirement(each).name for each in spec.requirements} == {
        Requirement(each).name for each in packages
    }


@pytest.mark.parametrize(
    ("packages", "becomes", "mended"),
    [
        (("keras==2.2.4",), {"keras==2.15.*", "tensorflow-cpu==2.15.*", "numpy<1.24,>=1.23.5"}, True),
        (("keras==2.11.0",), {"keras==2.15.*", "tensorflow-cpu==2.15.*", "numpy<1.24,>=1.23.5"}, False),
        (("keras==2.3.1", "tensorflow"), {"keras==2.15.*", "tensorflow==2.15.*", "numpy<1.24,>=1.23.5"}, True),
        (("tensorflow==2.0.0", "keras==2.12.0"), {"keras==2.15.*", "tensorflow-cpu==2.15.*", "numpy<1.24,>=1.23.5"}, True),
        (("tensorflow==1.15", "protobuf==3.6.1"), {"tensorflow-cpu==2.15.*", "protobuf<5,>=3.20.3", "numpy<1.24,>=1.23.5"}, True),
        (("tensorflow==2.0", "numpy==1.16"), {"tensorflow-cpu==2.15.*", "numpy<1.24,==1.23.*,>=1.23.5"}, True),
        (("scikit-learn==0.22.1",), {"scikit-learn==1.1.*", "numpy<1.24", "scipy<1.12"}, False),
        (("pillow==6.2.1",), {"pillow==9.2.*"}, False),
        (("torch==1.4.0", "torchvision==0.5.0"), {"torch==2.2.*", "torchvision==0.17.*", "numpy<2"}, False),
        (("sklearn",), {"scikit-learn"}, False),
        (("tensorflow-gpu>=2.0",), {"tensorflow-cpu>=2"}, False),
    ],
)  # fmt: skip
def test_pins_are_exchanged_so_that_they_go_together(
    packages: tuple[str, ...], becomes: set[str], mended: bool
) -> None:
    spec = normal(*packages)
    assert {frozenset(each.split(",")) for each in own(spec)} == {
        frozenset(each.split(",")) for each in becomes
    }
    assert ("keras-lr" in spec.mends) is mended


def test_azureml_names_bring_the_sdks_requirements_and_never_themselves() -> None:
    spec = normal(
        "azureml-dataset-runtime[pandas,fuse]", "AzureML_Core==1.2", "azureml-train-automl"
    )
    assert own(spec) == {"pandas", "pyarrow"}
    assert spec.python == "3.11.7"
    assert "azureml-train-automl -> " in "\n".join(spec.warnings)
    assert "not supported" in spec.warnings[-1]


def test_a_users_own_pin_wins_over_the_sdks_and_is_said() -> None:
    spec = normal("azureml-core", "pydantic<2")
    assert "pydantic<2" in spec.requirements
    assert "pydantic>=2.12, which other pins rule out" in spec.warnings[0]


def test_the_sdk_asks_for_a_python_it_runs_on() -> None:
    plain = normalise(from_packages(["six"], python="3.8"), available_pythons=PYTHONS)
    assert plain.python == "3.8.18"
    sdk = normalise(from_packages(["azureml-core"], python="3.8"), available_pythons=PYTHONS)
    assert sdk.python == "3.11.7"
    assert sdk.warnings[0] == "python 3.8 -> 3.11.7: the SDK inside a run needs Python >=3.11"
    old = normalise(from_packages(["azureml-core"], python="3.6.2"), available_pythons=PYTHONS)
    assert old.warnings[0].startswith(
        "python 3.6.2 -> 3.11.7: the SDK inside a run needs Python >="
    )
    assert "3.8.18" not in old.warnings[0]


def test_the_table_names_what_the_sdk_declares() -> None:
    project = Path(stellwerk.__file__).parents[2] / "pyproject.toml"
    for requirement in builtin().sdk.requires:
        assert f'"{Requirement(requirement).name}' in project.read_text()


def test_conda_libraries_are_left_out_and_said() -> None:
    yaml = "dependencies: [cudatoolkit=10.0, pytorch=2.1, openmpi]"
    spec = normalise(from_conda_yaml(yaml), available_pythons=PYTHONS)
    assert spec.requirements == ("torch==2.1.*",)
    assert spec.warnings[1].startswith("conda package cudatoolkit=10.0 -> left out: ")
    assert spec.warnings[2].startswith("conda package openmpi -> left out: ")


def test_the_vendors_base_images_become_the_platforms() -> None:
    definition = EnvironmentDefinition(image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04")
    spec = normalise(definition, available_pythons=PYTHONS)
    assert spec.container is None
    assert spec.warnings[0].startswith("image mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04 -")
    bare = normalise(EnvironmentDefinition(), available_pythons=PYTHONS)
    assert env_id(spec, platform="p", builder_version="1") == env_id(
        bare, platform="p", builder_version="1"
    )


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("AzureML-sklearn-1.5", "scikit-learn==1.5.*"),
        ("azureml-SKLEARN-0.24-ubuntu18.04-py37-cpu", "scikit-learn==0.24.*"),
        ("AzureML-TensorFlow-2.1-GPU", "tensorflow-gpu==2.1.*"),
        ("azureml-acpt-pytorch-2.2-cuda12.1", "torch==2.2.*"),
        ("AzureML-Minimal", "azureml-defaults"),
        *((name, "azureml-defaults") for name in builtin().curated_names),
    ],
)
def test_curated_environments(name: str, holds: str) -> None:
    packages = builtin().curated_packages(name)
    assert packages is not None
    assert holds in packages
    normal(*packages)
    assert builtin().curated_packages("my-sklearn-1.5") is None


def test_a_changed_table_makes_another_environment(tmp_path: Path) -> None:
    file = tmp_path / "more.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "packages": {
                    "keras": None,
                    "in-house": {"pythons": {"3.11": {"oldest": "4.0", "use": "==4.2.*"}}},
                },
                "curated": {"team-(?P<version>\\d)": ["in-house=={version}.*"]},
            }
        )
    )
    table = with_file(file)
    definition = from_packages(["in-house==1.0", "keras==2.3.1"])
    spec = normalise(definition, available_pythons=PYTHONS, overrides=table)
    assert spec.requirements == ("in-house==4.2.*", "keras==2.3.1")
    before = normalise(definition, available_pythons=PYTHONS)
    assert env_id(before, platform="p", builder_version="1") != env_id(
        spec, platform="p", builder_version="1"
    )
    assert table.curated_packages("Team-3") == ("in-house==3.*",)
    assert table.provides("azureml-core") is not None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "packages: {numpy: {pythons: {'3.11': {oldest: 1.23}}}}",
            "packages.numpy.pythons.3.11.oldest",
        ),
        ("packages: {numpy: {pythons: {'3.11': {oldest: old}}}}", "'old' is no version"),
        ("packages: {numpy: {pythens: {}}}", "packages.numpy.pyth"),
        ("sdk: {python: '>=3.11', requires: ['x @ y z']}", "sdk.requires"),
        ("curated: {'(': []}", "no regular expression"),
        ("- a list", "must be a mapping"),
        ("a: [", "line 1"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        with_file(file)
    assert named in caught.value.message
    assert str(file) in caught.value.message


versions = st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(0, 3)).map(
    lambda parts: ".".join(map(str, parts))
)
clauses = st.one_of(
    st.tuples(st.sampled_from(["==", "<=", "<", ">=", ">", "!=", "~="]), versions).map("".join),
    versions.map(lambda version: f"=={version.rpartition('.')[0]}.*"),
)
ranges = st.lists(clauses, max_size=3).map(",".join)
names = st.sampled_from(
    sorted({*builtin().packages, "tensorflow-gpu", "sklearn", "azureml-core", "six"})
)


@given(ranges, versions)
def test_an_interval_never_loses_a_version(text: str, version: str) -> None:
    """What packaging allows lies in the interval: a range with an installable version stays."""
    specifiers = SpecifierSet(text)
    if specifiers.contains(version):
        assert overlap(specifiers, SpecifierSet(f"=={version}"))
        assert reaches(specifiers, version)
    assert SpecifierSet(minor_of(version)).contains(version)


@given(
    st.lists(st.tuples(names, ranges), max_size=6),
    st.sampled_from(["3.8.1", "3.11.7", "3.12.1", "3.13.0"]),
)
def test_exchanges_settle_and_only_touch_what_they_name(
    wanted: list[tuple[str, str]], python: str
) -> None:
    requirements = [Requirement(name + versions) for name, versions in wanted]
    outcome = substitute(requirements, python=python, table=builtin())
    minor = python.rpartition(".")[0]
    for each in outcome.requirements:
        assert not each.name.startswith("azureml")
        found = builtin().package(each.name)
        row = found and found[1].pythons.get(minor)
        if row:
            assert reaches(each.specifier, row.oldest) or not reaches(each.specifier, "0"), each
            assert each.name not in found[1].discontinued
    named = {item.was for item in outcome.substitutions}
    for each in requirements:
        kept = any(
            each.name == other.name and set(each.specifier) <= set(other.specifier)
            for other in outcome.requirements
        )
        assert kept or str(each) in named
    again = substitute(outcome.requirements, python=python, table=builtin())
    assert again.substitutions == []


def test_rows_are_consistent() -> None:
    """Every substitute can be installed itself, and agrees with what the other rows ask for."""
    table = builtin()
    for package in table.packages.values():
        for minor, row in package.pythons.items():
            use = SpecifierSet(row.use or minor_of(row.oldest))
            assert reaches(use, row.oldest)
            for name, versions in {**row.needs, **row.fits}.items():
                other = table.package(name)
                there = other and other[1].pythons.get(minor)
                if there:
                    assert reaches(SpecifierSet(versions), there.oldest), (name, minor)
                    mine = SpecifierSet(there.use or minor_of(there.oldest))
                    assert overlap(mine, SpecifierSet(versions)), (name, minor)
            assert Version(row.oldest)
