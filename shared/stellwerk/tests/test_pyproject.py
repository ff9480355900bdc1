"""pyproject.toml and uv.lock as environments: what is read, and what is refused with which words."""

import time

import pytest

from stellwerk.environment_spec import (
    InvalidEnvironment,
    from_pyproject,
    from_requirements,
    normalise,
)
from stellwerk.uv_lock_file import read_uv_lock

PROJECT = """
[project]
name = "My_Project"
requires-python = ">=3.11"
dependencies = ["numpy>=1.26", "Six"]
[project.optional-dependencies]
fast = ["orjson>=3", "my-project[plain]"]
plain = ["idna"]
[dependency-groups]
test = ["click", {include-group = "lint"}]
lint = ["packaging"]
[tool.uv]
constraint-dependencies = ["packaging<30"]
"""

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
LOCK = f"""
version = 1
requires-python = ">=3.11"

[[package]]
name = "my-project"
source = {{ virtual = "." }}
dependencies = [
    {{ name = "numpy", version = "2.4.6", source = {{ registry = "x" }}, marker = "python_full_version < '3.12'" }},
    {{ name = "numpy", version = "2.5.5", source = {{ registry = "x" }}, marker = "python_full_version >= '3.12'" }},
    {{ name = "six" }},
]
[package.optional-dependencies]
fast = [{{ name = "orjson", extra = ["deep"] }}, {{ name = "idna" }}]
plain = [{{ name = "idna" }}]
[package.dev-dependencies]
test = [{{ name = "click" }}]
[package.metadata]
requires-dist = [
    {{ name = "numpy", specifier = ">=1.26" }}, {{ name = "six" }},
    {{ name = "orjson", marker = "extra == 'fast'", specifier = ">=3" }},
    {{ name = "my-project", extras = ["plain"], marker = "extra == 'fast'" }},
    {{ name = "idna", marker = "extra == 'plain'" }},
]

[[package]]
name = "numpy"
version = "2.4.6"
source = {{ registry = "x" }}
resolution-markers = ["python_full_version < '3.12'"]
wheels = [
    {{ url = "h/numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.whl", hash = "sha256:{A}" }},
    {{ url = "h/numpy-2.4.6-cp311-cp311-win_amd64.whl", hash = "sha256:{B}" }},
]

[[package]]
name = "numpy"
version = "2.5.5"
source = {{ registry = "x" }}
resolution-markers = ["python_full_version >= '3.12'"]
wheels = [{{ url = "h/numpy-2.5.5-cp312-cp312-manylinux_2_27_x86_64.whl", hash = "sha256:{C}" }}]

[[package]]
name = "six"
version = "1.17.0"
source = {{ registry = "x" }}
sdist = {{ url = "h/six-1.17.0.tar.gz", hash = "sha256:{D}" }}
wheels = [{{ url = "h/six-1.17.0-py2.py3-none-any.whl", hash = "sha256:{B}" }}]

[[package]]
name = "orjson"
version = "3.13.0"
source = {{ registry = "x" }}
wheels = [{{ url = "h/orjson-3.13.0-cp311-cp311-manylinux_2_17_x86_64.whl", hash = "sha256:{A}" }}]
[package.optional-dependencies]
deep = [{{ name = "certifi" }}]

[[package]]
name = "certifi"
version = "2026.1"
source = {{ registry = "x" }}
wheels = [{{ url = "h/certifi-2026.1-py3-none-any.whl", hash = "sha256:{A}" }}]

[[package]]
name = "idna"
version = "3.20"
source = {{ registry = "x" }}
wheels = [{{ url = "h/idna-3.20-py3-none-any.whl", hash = "sha256:{A}" }}]

[[package]]
name = "click"
version = "8.5.1"
source = {{ registry = "x" }}
wheels = [{{ url = "h/click-8.5.1-py3-none-any.whl", hash = "sha256:{A}" }}]

[[package]]
name = "never-needed"
version = "1.0"
source = {{ git = "https://example.invalid/x" }}
"""


def test_dependencies_extras_and_groups_are_what_is_wanted() -> None:
    plain = from_pyproject(PROJECT)
    assert (plain.python, plain.pip_packages) == (">=3.11", ("numpy>=1.26", "Six"))
    assert plain.constraints == ("packaging<30",)
    more = from_pyproject(PROJECT, extras=["Fast"], groups=["test"])
    assert more.pip_packages == ("numpy>=1.26", "Six", "orjson>=3", "idna", "click", "packaging")
    assert plain.hashes == {}


def test_lock_pins_what_is_reached_and_nothing_else() -> None:
    found = from_pyproject(PROJECT, lock=LOCK)
    assert found.pip_packages == ("numpy>=1.26", "Six")
    assert found.constraints == (
        "packaging<30",
        "numpy==2.4.6 ; (python_full_version < '3.12')",
        "numpy==2.5.5 ; (python_full_version >= '3.12')",
        "six==1.17.0",
    )
    assert found.hashes == {"numpy==2.4.6": (A,), "numpy==2.5.5": (C,), "six==1.17.0": (B, D)}
    more = from_pyproject(PROJECT, lock=LOCK, extras=["fast"], groups=["test"])
    assert set(more.hashes) - set(found.hashes) == {
        "orjson==3.13.0", "certifi==2026.1", "idna==3.20", "click==8.5.1",
    }  # fmt: skip
    spec = normalise(found, available_pythons=["3.11.7"])
    assert spec.hashes["six==1.17"] == (B, D)
    assert "six==1.17" in spec.constraints


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("[project]", "[project", "env.syntax", "broken"),
        ('name = "My_Project"', 'dynamic = ["dependencies"]', "env.dynamic", "under [project]"),
        ('"Six"', "3", "env.syntax", "project.dependencies[1]"),
        ('"Six"', '"six @ https://example.invalid/x.whl"', "env.direct_reference", "[1]"),
        ('"Six"', '"six=1"', "env.requirement", "project.dependencies[1]"),
        ('["numpy>=1.26", "Six"]', '"numpy"', "env.syntax", "list"),
        ('requires-python = ">=3.11"', 'requires-python = "new"', "env.python", "new"),
        (
            "[tool.uv]",
            "[tool.uv.sources]\nsix = {git = 'x'}\n[tool.uv]",
            "env.direct_reference",
            "six",
        ),
        ("[tool.uv]", "[[tool.uv.index]]\nurl = 'x'\n[tool.uv]", "env.index_option", "operator"),
        ("[tool.uv]", "[tool.uv]\noverride-dependencies = []", "env.option", "Overrides"),
        ("[tool.uv]", "#" + "x" * 70_000, "env.too_large", "65536"),
        ("[tool.uv]", "#\0", "env.syntax", "Control"),
        ("packaging<30", "packaging<", "env.requirement", "constraint-dependencies[0]"),
        ("[tool.uv]", "[tool]\nuv = 3\n[x]", "env.syntax", "tool.uv"),
        ("[tool.uv]", "[x]\n[[tool]]\n[y]", "env.syntax", "tool"),
        ('name = "My_Project"', "dynamic = 3", "env.syntax", "project.dynamic"),
        ("[dependency-groups]", "[[dependency-groups]]", "env.syntax", "dependency-groups"),
    ],
)
def test_bad_projects_are_refused_by_field(old: str, new: str, code: str, words: str) -> None:
    with pytest.raises(InvalidEnvironment) as caught:
        from_pyproject(PROJECT.replace(old, new, 1))
    assert caught.value.code == code
    assert words in str(caught.value)


def test_project_without_the_standard_table_is_refused() -> None:
    with pytest.raises(InvalidEnvironment, match="standard table") as caught:
        from_pyproject("[tool.poetry]\nname = 'x'\n")
    assert caught.value.code == "env.syntax"


def test_unknown_extras_and_groups_name_the_known_ones() -> None:
    with pytest.raises(InvalidEnvironment, match="extras are: fast, plain") as caught:
        from_pyproject(PROJECT, extras=["fest"])
    assert caught.value.code == "env.extra_unknown"
    with pytest.raises(InvalidEnvironment, match="groups are: lint, test") as caught:
        from_pyproject(PROJECT, groups=["dev"])
    assert caught.value.code == "env.group_unknown"
    circle = PROJECT.replace('lint = ["packaging"]', 'lint = [{include-group = "test"}]')
    with pytest.raises(InvalidEnvironment, match="includes itself"):
        from_pyproject(circle, groups=["test"])


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("version = 1", "version = 9", "env.lock_version", "current uv"),
        ("version = 1", "version = [", "env.syntax", "broken"),
        ('name = "my-project"', 'name = "other"', "env.lock_stale", "another project"),
        ('specifier = ">=1.26"', 'specifier = ">=1"', "env.lock_stale", "run uv lock"),
        (f', hash = "sha256:{A}"', "", "env.hash_required", "numpy"),
        (f"sha256:{A}", "md5:" + "a" * 32, "env.hash_required", "md5"),
        (f"sha256:{A}", "sha256:abc", "env.hash_required", "SHA-256"),
        ('version = "1.17.0"\nsource = { registry = "x" }', 'version = "1.17.0"\nsource = { url = "x" }',
         "env.direct_reference", "uv.lock package six"),
        ("python_full_version < '3.12'\"]", "os.system('x')\"]", "env.requirement", "numpy"),
        ("requires-dist = [", "requires-dist = 3\nother = [", "env.syntax", "run uv lock again"),
        ('specifier = ">=1.26"', 'specifier = "zz"', "env.syntax", "run uv lock again"),
        ('{ name = "six" },', "1,", "env.syntax", "run uv lock again"),
        ('version = "1.17.0"\nsource = { registry = "x" }', 'version = "1.17.0"\nsource = 3', "env.syntax", "run uv lock again"),
        ('sdist = { url = "h/six-1.17.0.tar.gz", hash = "sha256:{D}" }\nwheels = [{ url = "h/six-1.17.0-py2.py3-none-any'.replace("{D}", D),
         'wheels = [{ url = "h/six-1.17.0-cp311-cp311-win32', "env.no_wheel", "six==1.17.0"),
        ("requires-python", "#" + "x" * 5_000_000 + "\nrequires-python", "env.too_large", "4194304"),
    ],
)  # fmt: skip
def test_bad_locks_are_refused(old: str, new: str, code: str, words: str) -> None:
    assert old in LOCK
    with pytest.raises(InvalidEnvironment) as caught:
        from_pyproject(PROJECT, lock=LOCK.replace(old, new, 1))
    assert caught.value.code == code
    assert words in str(caught.value)


def test_what_is_included_twice_is_expanded_once() -> None:
    groups = [
        f"g{i} = [{{include-group = 'g{i + 1}'}}, {{include-group = 'g{i + 1}'}}]"
        for i in range(60)
    ]
    extras = [f"e{i} = ['p[e{i + 1}]', 'p[e{i + 1}]']" for i in range(60)]
    text = "\n".join(
        [
            *(
                "[project]",
                "name = 'p'",
                "[project.optional-dependencies]",
                *extras,
                "e60 = ['six']",
            ),
            *("[dependency-groups]", *groups, "g60 = ['idna']"),
        ]
    )
    assert from_pyproject(text, extras=["e0"], groups=["g0"]).pip_packages == ("six", "idna")


def test_groups_are_not_endlessly_deep() -> None:
    groups = [f"g{i} = [{{include-group = 'g{i + 1}'}}]" for i in range(1000)]
    text = "\n".join(["[project]", "[dependency-groups]", *groups, "g1000 = []"])
    with pytest.raises(InvalidEnvironment, match="at most 100 deep"):
        from_pyproject(text, groups=["g0"])
    extras = [f"e{i} = ['p[e{i + 1}]']" for i in range(1000)]
    head = ["[project]", "name = 'p'", "[project.optional-dependencies]"]
    with pytest.raises(InvalidEnvironment, match="at most 100 deep"):
        from_pyproject("\n".join([*head, *extras, "e1000 = []"]), extras=["e0"])


def test_lock_of_many_packages_is_read_at_once() -> None:
    entry = """[[package]]
name = "n{0}"
version = "1"
source = {{ registry = "x" }}
dependencies = [{{ name = "n{1}" }}, {{ name = "n{2}" }}]
wheels = [{{ url = "h/n-1-py3-none-any.whl", hash = "sha256:{3}" }}]
"""
    packages = [entry.format(i, (i + 1) % 5000, (i * 7) % 5000, A) for i in range(5000)]
    root = "version = 1\n[[package]]\nname='p'\nsource={virtual='.'}\ndependencies=[{name='n0'}]\n"
    meta = "[package.metadata]\nrequires-dist=[{name='n0'}]\n"
    began = time.process_time()
    found = read_uv_lock(root + meta + "".join(packages), "p", ["n0"], (), ())
    assert len(found.constraints) == 5000
    assert time.process_time() - began < 20  # 50 million comparisons of names would be minutes


def test_locked_package_of_another_system_stands_in_nobodys_way() -> None:
    lock = LOCK.replace("cp311-cp311-manylinux_2_27_x86_64", "cp311-cp311-win32")  # under a marker
    assert from_pyproject(PROJECT, lock=lock).hashes["numpy==2.4.6"] == ()


def lock_of(packages: str) -> str:
    root = "version = 1\n[[package]]\nname='p'\nsource={virtual='.'}\ndependencies=[{name='n'}]\n"
    return root + "[package.metadata]\nrequires-dist=[{name='n'}]\n" + packages


def test_many_versions_of_one_name_are_refused() -> None:
    entry = "[[package]]\nname='n'\nversion='{0}'\nsource={{registry='x'}}\ndependencies=[{{name='n'}}]\n"
    lock = lock_of("".join(entry.format(number) for number in range(20_000)))
    with pytest.raises(InvalidEnvironment) as caught:
        read_uv_lock(lock, "p", ["n"], (), ())
    assert (caught.value.code, caught.value.field) == ("env.lock_versions", "uv.lock package n")
    assert "50" in caught.value.hint
    assert "requires-python" in caught.value.hint


def test_extras_of_one_package_are_gone_through_once() -> None:
    extras = "".join(f"{{name='n', extra=['e{number}']}}," for number in range(8000))
    needs = "".join(f"{{name='m{number}'}}," for number in range(8000))
    entry = f"[[package]]\nname='n'\nversion='1'\nsource={{registry='x'}}\ndependencies=[{extras}{needs}]\n"
    file = f"wheels=[{{url='n-1-py3-none-any.whl',hash='sha256:{A}'}}]\n"
    began = time.process_time()
    assert read_uv_lock(lock_of(entry + file), "p", ["n"], (), ()).constraints == ("n==1",)
    assert time.process_time() - began < 20  # 8000 times 16,000 entries would be minutes


@pytest.mark.parametrize("condition", ["(" * 5000 + "os_name == 'x'" + ")" * 5000, "(" * 30_000])
def test_deeply_nested_markers_are_no_requirement(condition: str) -> None:
    with pytest.raises(InvalidEnvironment) as caught:
        from_requirements(f"six ; {condition}\n")
    assert caught.value.code == "env.requirement"
