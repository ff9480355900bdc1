"""The environment specification: what is accepted, what it means, and when two are the same."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stellwerk.conda_part import KnownChannels
from stellwerk.environment_spec import (
    EnvironmentDefinition,
    InvalidEnvironment,
    NormalisedSpec,
    env_id,
    from_conda_yaml,
    from_dict,
    from_packages,
    from_requirements,
    normalise,
)

PYTHONS = ("3.11.7", "3.9.18", "3.12.1")


def identity(definition: EnvironmentDefinition) -> str:
    spec = normalise(definition, available_pythons=PYTHONS)
    return env_id(spec, platform="linux-x86_64", builder_version="1")


def normal(text: str) -> NormalisedSpec:
    return normalise(from_requirements(text), available_pythons=PYTHONS)


CONDA = """
name: tutorial
channels:
  - conda-forge
dependencies:
  - python=3.9
  - pip
  - numpy=1.26
  - pip:
    - tensorflow
    - keras>=3.0
    - matplotlib
variables:
  EPOCHS: 5
prefix: somewhere
"""


def test_conda_yaml_becomes_index_requirements() -> None:
    definition = from_conda_yaml(CONDA)
    assert definition.python == "3.9"
    assert definition.environment_variables == {"EPOCHS": "5"}
    spec = normalise(definition, available_pythons=PYTHONS)
    assert spec.python == "3.9.18"
    assert spec.requirements == ("keras>=3", "matplotlib", "numpy==1.26.*", "tensorflow")
    assert spec.warnings == (
        "conda packages are installed from the Python package index here: numpy",
    )


def test_python_may_be_missing_and_then_is_the_machines_own() -> None:
    spec = normalise(from_conda_yaml("dependencies:\n  - pip\n"), available_pythons=PYTHONS)
    assert spec == NormalisedSpec(python="3.11.7")


@pytest.mark.parametrize(
    ("wanted", "chosen", "warned"),
    [
        ("3.12", "3.12.1", False),
        ("3.9.18", "3.9.18", False),
        (">=3.10", "3.11.7", False),
        ("<3.10", "3.9.18", False),
        ("3", "3.11.7", False),
        ("3.9.2", "3.9.18", True),
        ("3.6.2", "3.9.18", True),
        ("3.10", "3.11.7", True),
        ("3.14", "3.12.1", True),
        (">=3.13", "3.12.1", True),
    ],
)
def test_python_pin_is_met_or_relaxed_to_the_nearest(
    wanted: str, chosen: str, warned: bool
) -> None:
    spec = normalise(EnvironmentDefinition(python=wanted), available_pythons=PYTHONS)
    assert spec.python == chosen
    assert bool(spec.warnings) is warned


def test_strict_mode_refuses_what_would_be_relaxed() -> None:
    definition = EnvironmentDefinition(python="3.6.2", conda_packages=("numpy=1.26",), strict=True)
    with pytest.raises(InvalidEnvironment) as caught:
        normalise(definition, available_pythons=PYTHONS)
    assert caught.value.code == "env.strict"
    assert caught.value.field == "strict"
    assert "python 3.6.2 -> 3.9.18: this machine has 3.11.7, 3.9.18, 3.12.1" in caught.value.hint
    assert "conda package numpy=1.26 -> numpy==1.26.*" in caught.value.hint


def test_machine_without_python_is_said() -> None:
    with pytest.raises(InvalidEnvironment, match="no usable Python"):
        normalise(EnvironmentDefinition(), available_pythons=())


@pytest.mark.parametrize("wanted", ["three", "3.x", "==", "3.8.1.2.3 or so", "===3.8"])
def test_nonsense_python_is_refused(wanted: str) -> None:
    with pytest.raises(InvalidEnvironment) as caught:
        from_packages([], python=wanted)
    assert caught.value.code == "env.python"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--index-url https://user:secret@example.invalid/index", "env.index_option"),
        ("-i https://example.invalid/index", "env.index_option"),
        ("--extra-index-url=https://example.invalid", "env.index_option"),
        ("--find-links ./wheels", "env.index_option"),
        ("--pre", "env.option"),
        ("-r more.txt", "env.option"),
        ("six==1.17.0 --hash=sha256:00", "env.option"),
        ("-e .", "env.path"),
        ("-e git+https://example.invalid/x.git", "env.path"),
        ("git+https://user:secret@example.invalid/x.git", "env.direct_reference"),
        ("git+ssh://git@example.invalid/x.git", "env.direct_reference"),
        ("x @ git+https://example.invalid/x.git", "env.direct_reference"),
        ("x @ https://example.invalid/x.whl", "env.direct_reference"),
        ("https://example.invalid/x.whl", "env.direct_reference"),
        ("file:///etc/passwd", "env.direct_reference"),
        ("x @ file:///tmp/x.whl", "env.direct_reference"),
        ("./x", "env.path"),
        ("../x", "env.path"),
        ("/srv/x", "env.path"),
        ("~/x", "env.path"),
        ("C:\\x", "env.path"),
        (".", "env.path"),
        ("x-1.0-py3-none-any.whl", "env.path"),
        ("six=1.0", "env.requirement"),
        ("six one", "env.requirement"),
        ("six; os_name", "env.requirement"),
        ("$(reboot)", "env.requirement"),
        ("${TOKEN}", "env.requirement"),
    ],
)
def test_requirement_lines_that_choose_their_source_are_refused(line: str, code: str) -> None:
    with pytest.raises(InvalidEnvironment) as caught:
        from_requirements(f"# first\n\nsix\n{line}\n")
    assert caught.value.code == code
    assert caught.value.field == "requirements line 4"
    assert caught.value.hint
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidEnvironment) as caught:
        from_packages(["six", line])
    assert (caught.value.code, caught.value.field) == (code, "pip_packages[1]")


def test_requirement_line_may_be_continued() -> None:
    assert from_requirements("keras \\\n  >=3 # deep\n\tsix\n").pip_packages == (
        "keras >=3",
        "six",
    )


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("a: &x [1]\nb: *x\n", "env.syntax", "Anchors"),
        ("dependencies: &deps []\n", "env.syntax", "Anchors"),
        ("name: !!python/object/apply:os.system ['true']\n", "env.syntax", "Tags"),
        ("dependencies: [" + "[" * 30 + "]" * 31, "env.syntax", "Nested"),
        ("[" * 30_000, "env.syntax", "Nested"),
        ("dependencies:\n  - {{ package }}\n", "env.syntax", "Templates"),
        ("dependencies: [six\n", "env.syntax", "conda file line 2, column 1: The YAML is broken"),
        ("dependencies:\n\t- six\n", "env.syntax", "broken"),
        ("name: a\n---\nname: b\n", "env.syntax", "broken"),
        ("name: a\nname: b\n", "env.syntax", "twice"),
        ("- six\n", "env.syntax", "not a list"),
        ("dependencies: six\n", "env.syntax", "list"),
        ("dependencies: [3.10]\n", "env.syntax", "package"),
        ("dependencies: [{pip: six}]\n", "env.syntax", "list"),
        ("variables: {A: true}\n", "env.syntax", "quotes"),
        ("variables: {'A B': x}\n", "env.field", "pattern"),
        ("name: 2026-99-99\n", "env.syntax", "cannot be read"),
        ("dependancies: []\n", "env.field_unknown", "Did you mean dependencies"),
        ("dependencies: [r-base=4.1]\n", "env.conda_package", "pip section"),
        ("dependencies: ['numpy[version=1]']\n", "env.conda_package", "understood"),
        ("dependencies: ['numpy 1.2|1.3']\n", "env.conda_package", "understood"),
        ("dependencies: ['https://example.invalid/x.conda']\n", "env.conda_package", ""),
        ("dependencies: [{pip: ['-e .']}]\n", "env.path", "source folder"),
        ("channels: ['https://u:secret@example.invalid/c']\n", "env.channel", "Credentials"),
        ("name: a\x00b\n", "env.syntax", "Control"),
        ("# " + "x" * 65_536, "env.too_large", "65536"),
    ],
)
def test_bad_conda_files_are_refused_with_a_reason(text: str, code: str, words: str) -> None:
    with pytest.raises(InvalidEnvironment) as caught:
        normalise(from_conda_yaml(text), available_pythons=PYTHONS)
    assert caught.value.code == code
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("conda", "requirement"),
    [
        ("numpy", "numpy"),
        ("NumPy=1.25", "numpy==1.25.*"),
        ("numpy=1.25.*", "numpy==1.25.*"),
        ("numpy==1.25.2", "numpy==1.25.2"),
        ("numpy=1.25.2=py36_0", "numpy==1.25.2"),
        ("numpy 1.25.2", "numpy==1.25.2"),
        ("conda-forge::numpy>=1.18,<2", "numpy<2,>=1.18"),
        ("pytorch=2.1", "torch==2.1.*"),
        ("tensorflow-gpu", "tensorflow"),
    ],
)
def test_conda_specs_mean_what_they_mean_to_conda(conda: str, requirement: str) -> None:
    definition = from_dict({"conda_packages": [conda]})
    assert normalise(definition, available_pythons=PYTHONS).requirements == (requirement,)


def test_unknown_field_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(InvalidEnvironment, match="Did you mean pip_packages") as caught:
        from_dict({"pip_package": ["six"]})
    assert (caught.value.code, caught.value.field) == ("env.field_unknown", "pip_package")


def test_user_managed_environment_keeps_only_its_interpreter() -> None:
    definition = from_dict({"user_managed": True, "interpreter": "/opt/python/bin/python"})
    spec = normalise(definition, available_pythons=())
    assert spec == NormalisedSpec(user_managed=True, interpreter="/opt/python/bin/python")
    with pytest.raises(InvalidEnvironment, match="user_managed"):
        from_dict({"interpreter": "/opt/python/bin/python"})


def test_same_requirements_in_other_words_are_the_same_environment() -> None:
    first = from_requirements("Six>=1.0\nscikit_learn[ Extra_A , b ]==1.5.0 ; python_version>'3'\n")
    second = from_requirements(
        '\ufeff# c\n\nscikit.learn[B,extra.a] == 1.5;python_version > "3"\nsix\nSIX >= 1  # why\n'
    )
    assert identity(first) == identity(second)


def test_versions_that_differ_are_different_environments() -> None:
    ids = [
        identity(from_packages([text], python=python))
        for text in ("six", "six==1.0", "six~=1.0", "six~=1.0.0", "six==1.0.*", "six===1.0", "idna")
        for python in ("3.11", "3.12")
    ]
    assert len(set(ids)) == 14


def test_id_depends_on_platform_and_builder_but_not_on_variables_or_strictness() -> None:
    definition = from_packages(["six"])
    spec = normalise(definition, available_pythons=PYTHONS)
    ids = {
        env_id(spec, platform=platform, builder_version=version)
        for platform in ("a", "b")
        for version in ("1", "2")
    }
    assert len(ids) == 4
    assert all(len(each) == 40 and int(each, 16) for each in ids)
    other = definition.model_copy(update={"environment_variables": {"A": "1"}, "strict": True})
    assert identity(other) == identity(definition)


names = st.sampled_from(["six", "idna", "scikit-learn", "keras", "a.b", "zope_interface"])
versions = st.sampled_from(["", "==1.0", ">=1,<3.5", "~=2.1", "!=1.5", "==2.*", ">=3.0rc1"])
extras = st.sampled_from(["", "[gpu]", "[gpu,All_Things]"])
markers = st.sampled_from(["", "; python_version >= '3.8'", "; sys_platform == 'linux'"])
requirement = st.tuples(names, extras, versions, markers).map("".join)
packages = st.lists(requirement, min_size=1, max_size=6)


def respell(line: str, chance: random.Random) -> str:
    """The same requirement as somebody else might write it."""
    body, separator, marker = line.partition(";")
    name_end = next((i for i, c in enumerate(body) if c in "[=<>~!"), len(body))
    name = body[:name_end]
    name = "".join(chance.choice((c.upper(), c)) for c in name).replace("-", chance.choice("-_."))
    rest = body[name_end:].replace(",", chance.choice((",", " , ")))
    comment = chance.choice(("", "  # pinned", "   "))
    blank = chance.choice(("", "\n", "# note\n"))
    space = chance.choice(("", " "))
    return f"{blank}{space}{name}{space}{rest}{space}{separator}{marker}{comment}"


@settings(deadline=None)
@given(packages, st.randoms(use_true_random=False))
def test_order_case_comments_and_blank_lines_never_matter(
    lines: list[str], chance: random.Random
) -> None:
    shuffled = [respell(line, chance) for line in lines + lines[:1]]
    chance.shuffle(shuffled)
    assert identity(from_requirements("\n".join(lines))) == identity(
        from_requirements("\n".join(shuffled))
    )


@settings(deadline=None)
@given(packages, requirement)
def test_any_new_requirement_changes_the_id(lines: list[str], added: str) -> None:
    before, after = normal("\n".join(lines)), normal("\n".join([*lines, added]))
    same = before.requirements == after.requirements
    assert (identity(from_packages(lines)) == identity(from_packages([*lines, added]))) is same
    assert identity(from_packages([*lines, "new-package==1"])) != identity(from_packages(lines))


conda_names = st.sampled_from(["numpy", "libxgboost", "r-base", "ruamel.yaml", "openssl"])
conda_versions = st.sampled_from(["", "=1.2", "==1.2.3", ">=1.0,<3", "=1.1.1w", "=1.2.3=h5e_0"])
conda_package = st.tuples(conda_names, conda_versions).map("".join)
OF_CHANNELS = KnownChannels({"ours": "https://conda.example.org/ours"})


def conda_identity(text: str, **changes: str) -> str:
    spec = normalise(from_conda_yaml(text), available_pythons=PYTHONS, conda=OF_CHANNELS)
    asked = {"platform": "linux-x86_64", "builder_version": "1", "base_image": None, **changes}
    return env_id(spec, **asked)  # type: ignore[arg-type]


def conda_file(packages: list[str], pip: list[str], chance: random.Random | None = None) -> str:
    """A conda file; with ``chance`` as somebody else might write it."""
    if chance is None:
        lines = [f"- {each!r}" for each in packages]
        return "\n".join(["channels: [conda-forge]", "dependencies:", *lines, _pip_lines(pip)])
    spelled = [_respell_conda(each, chance) for each in packages + packages[:1]]
    chance.shuffle(spelled)
    lines = [f"- {each!r}{chance.choice(('', '  # why', ' '))}" for each in spelled]
    shuffled = [respell(each, chance).strip().splitlines()[-1].partition("#")[0] for each in pip]
    chance.shuffle(shuffled)
    dependencies = ["dependencies:", "", *lines, _pip_lines(shuffled)]
    head = ["# a note", "channels: [conda-forge, conda-forge]", "name: other"]
    parts = ["\n".join(dependencies), "\n".join(head)]
    chance.shuffle(parts)
    return "\n".join(parts)


def _pip_lines(pip: list[str]) -> str:
    return "\n".join(["- pip:", *(f"  - {each.strip()!r}" for each in pip)])


def _respell_conda(spec: str, chance: random.Random) -> str:
    spec = (
        "".join(
            chance.choice((c.upper(), c)) if c.isalpha() and "h5e" not in spec else c
            for c in spec[:4]
        )
        + spec[4:]
    )
    swaps = {
        "=1.2": ("=1.2", "=1.2.*", " 1.2.*"),
        ">=1.0,<3": (">=1.0,<3", "<3,>=1", ">=1.0.0,<3.0"),
    }
    for end, others in swaps.items():
        if spec.endswith(end) and not spec.endswith("=" + end):
            return spec.removesuffix(end) + chance.choice(others)
    return spec


@settings(deadline=None)
@given(
    st.lists(conda_package, min_size=1, max_size=5),
    st.lists(requirement, max_size=4),
    st.randoms(use_true_random=False),
)
def test_of_conda_files_order_case_spelling_comments_and_blank_lines_never_matter(
    conda: list[str], pip: list[str], chance: random.Random
) -> None:
    pip = [each.replace("'", "") for each in pip if ";" not in each]
    assert conda_identity(conda_file(conda, pip)) == conda_identity(conda_file(conda, pip, chance))


@settings(deadline=None)
@given(st.lists(conda_package, min_size=1, max_size=5), conda_package)
def test_any_new_conda_package_changes_the_id(conda: list[str], added: str) -> None:
    def packages(each: list[str]) -> tuple[str, ...]:
        definition = from_conda_yaml(conda_file(each, []))
        part = normalise(definition, available_pythons=PYTHONS, conda=OF_CHANNELS).conda
        assert part is not None
        return part.packages

    same = packages(conda) == packages([*conda, added])
    ids = {conda_identity(conda_file(each, [])) for each in (conda, [*conda, added])}
    assert (len(ids) == 1) is same


@settings(deadline=None)
@given(packages, st.data())
def test_base_image_platform_builder_and_locked_files_change_the_id(
    lines: list[str], data: st.DataObject
) -> None:
    spec = normalise(from_packages(lines), available_pythons=PYTHONS)
    facts = st.fixed_dictionaries(
        {
            "platform": st.sampled_from(["linux-x86_64", "linux-aarch64"]),
            "builder_version": st.sampled_from(["1", "2"]),
            "base_image": st.sampled_from([None, "sha256:a", "sha256:b"]),
        }
    )
    first, second = data.draw(facts), data.draw(facts)
    assert (env_id(spec, **first) == env_id(spec, **second)) is (first == second)
    pinned = spec.model_copy(update={"constraints": ("six==1",)})
    files = pinned.model_copy(update={"hashes": {"six==1": ("a" * 64,)}})
    assert len({env_id(each, **first) for each in (spec, pinned, files)}) == 3


def test_channels_and_their_order_are_part_of_the_id() -> None:
    text = "channels: [{}]\ndependencies: [numpy]\n"
    ids = [
        conda_identity(text.format(channels))
        for channels in ("conda-forge", "ours", "ours, conda-forge", "conda-forge, ours")
    ]
    assert len(set(ids)) == 4
    assert conda_identity(text.format("defaults")) == ids[0]
    assert conda_identity("dependencies: [numpy]\n") == ids[0]
    by_index = normalise(from_conda_yaml(text.format("ours")), available_pythons=PYTHONS)
    assert by_index.conda is None


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("channels: [conda-forge, evil]\ndependencies: [numpy]\n", "channels[1]"),
        ("channels: [conda-forge/label/dev]\ndependencies: [numpy]\n", "channels[0]"),
        ("dependencies: [scipy, 'evil::numpy']\n", "conda_packages[1]"),
    ],
)
def test_channel_that_the_operator_did_not_list_is_refused(text: str, field: str) -> None:
    with pytest.raises(InvalidEnvironment) as caught:
        conda_identity(text)
    assert (caught.value.code, caught.value.field) == ("env.channel", field)
    assert "conda-forge, ours" in str(caught.value)
    assert "STELLWERK_BUILD_CHANNELS" in str(caught.value)


def test_channel_of_a_package_is_asked_after_the_others() -> None:
    text = "channels: [conda-forge]\ndependencies: ['ours::numpy', 'defaults::scipy']\n"
    spec = normalise(from_conda_yaml(text), available_pythons=PYTHONS, conda=OF_CHANNELS)
    assert spec.conda is not None
    assert spec.conda.channels == ("conda-forge", "ours")
    assert {"ours::numpy", "conda-forge::scipy"} < set(spec.conda.packages)
    assert any("channel defaults" in warning for warning in spec.warnings)


@pytest.mark.parametrize(
    ("wanted", "extra", "versions", "words"),
    [
        ("- python=3.6.2", "", "3.6.*,==3.6.2", ""),
        ("- python=3.12", "", "3.12.*", ""),
        ("- python>=3.8", "", "3.11.*,>=3.8", ""),
        ("- pip", "", "3.11.*", ""),
        ("- python=3.8", "- pip: [azureml-core]", "3.11.*", "the SDK inside a run needs Python"),
    ],
)
def test_python_of_a_conda_environment_is_what_was_wanted(
    wanted: str, extra: str, versions: str, words: str
) -> None:
    text = f"dependencies:\n- numpy\n{wanted}\n{extra}\n"
    spec = normalise(from_conda_yaml(text), available_pythons=PYTHONS, conda=OF_CHANNELS)
    assert spec.conda is not None
    assert f"python {versions}" in spec.conda.packages
    assert words in "".join(spec.warnings)
    assert bool(words) is any("python" in each for each in spec.warnings)
