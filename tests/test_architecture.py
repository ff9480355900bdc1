"""House rules that a test can check: who imports whom, how long things are, what each service has."""

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if (path / "src").is_dir())
SOURCES = sorted(
    path
    for top in ("shared", "services", "training/agent", "training/azureml-compat", "deploy")
    for path in (ROOT / top).rglob("src/**/*.py")
)
LONGEST_FILE = 600
LONGEST_FUNCTION = 70


def package(service: str) -> str:
    return f"stellwerk_{service.replace('-', '_')}"


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_there_are_eight_services() -> None:
    assert SERVICES == [
        "dataset", "environment-build", "gateway", "gpu-executor", "history", "keyvault", "model-registry", "scheduler",
    ]  # fmt: skip


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_imports_another(service: str) -> None:
    others = {package(other) for other in SERVICES if other != service} | {"stellwerk_embedded"}
    for path in (ROOT / "services" / service / "src").rglob("*.py"):
        found = {name.partition(".")[0] for name in imports(path)} & others
        assert not found, f"{path.relative_to(ROOT)} imports {found}"


def test_contracts_and_agent_know_nothing_of_services() -> None:
    for path in (ROOT / "shared/stellwerk/src").rglob("*.py"):
        allowed = {
            "stellwerk",
            "stellwerk_agent",
            "stellwerk_embedded",
        }  # the last two lazily, by name
        found = {name.partition(".")[0] for name in imports(path) if name.startswith("stellwerk")}
        assert found <= allowed, f"{path.relative_to(ROOT)} imports {found - allowed}"
    for path in (ROOT / "training/agent/src").rglob("*.py"):
        found = {name.partition(".")[0] for name in imports(path)}
        assert found <= set(sys.stdlib_module_names) | {"stellwerk_agent", "stellwerk_shim"}, path


def test_the_v1_layer_knows_the_sdk_and_nothing_else_of_ours() -> None:
    for path in (ROOT / "training/azureml-compat/src").rglob("*.py"):
        ours = {name.partition(".")[0] for name in imports(path) if name.startswith("stellwerk")}
        assert ours <= {"stellwerk", "stellwerk_agent"}, f"{path.relative_to(ROOT)} imports {ours}"


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_the_same_files(service: str) -> None:
    folder = ROOT / "services" / service
    present = {path.stem for path in (folder / "src" / package(service)).iterdir()}
    assert {"__main__", "settings", "app"} <= present
    assert (folder / "README.md").exists()
    assert list((folder / "tests").glob("test_*.py"))


@pytest.mark.parametrize("service", [name for name in SERVICES if name != "gateway"])
def test_deciders_do_no_io(service: str) -> None:
    domain = ROOT / "services" / service / "src" / package(service) / "domain.py"
    forbidden = {
        "asyncio",
        "sqlalchemy",
        "nats",
        "minio",
        "httpx2",
        "socket",
        "subprocess",
        "time",
        "random",
    }
    found = {name.partition(".")[0] for name in imports(domain)} & forbidden
    assert not found, f"{domain.relative_to(ROOT)} imports {found}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short_and_documented(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= LONGEST_FILE
    if text.strip():
        assert ast.get_docstring(tree), "a module says in its docstring what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def test_only_one_home_for_clocks_and_random_ids() -> None:
    homes = {
        "shared/stellwerk-kit/src/stellwerk_kit/clock.py",
        "shared/stellwerk/src/stellwerk/ids.py",
        "deploy/embedded/src/stellwerk_embedded/doctor.py",  # checks the clock itself
    }
    pattern = re.compile(r"\b(datetime\.now\(|datetime\.utcnow\(|uuid4\()")
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        if name in homes or name.startswith(("training/", "shared/stellwerk/src/stellwerk/")):
            continue
        assert not pattern.search(path.read_text()), name


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_index_host_or_machine_path_is_committed() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    pattern = re.compile(r"https?://[\w.-]+/simple\b|/packages/[0-9a-f]{2}/[0-9a-f]{2}/")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if (
            path.suffix in {".py", ".toml", ".txt", ".md", ".yml", ".yaml", ""}
            and path.is_file()
            and path.name != "test_architecture.py"
        ):
            assert not pattern.search(path.read_text(errors="replace")), name


@pytest.mark.parametrize("link", sorted(
    {(page, target) for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("services/*/README.md")]
     for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())}
), ids=lambda link: f"{link[0].name}->{link[1]}")  # fmt: skip
def test_links_in_the_docs_lead_somewhere(link: tuple[Path, str]) -> None:
    page, target = link
    assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs/howto").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_docs_exist(page: Path) -> None:
    """Every ``$ make X`` is a target, every ``$ stellwerk …`` a command that has its own help."""
    makefile = (ROOT / "Makefile").read_text()
    for line in re.findall(r"^\$ (.+?)(?:\s+#.*)?$", page.read_text(), re.MULTILINE):
        words = line.split()
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), line
        if words[0] == "stellwerk":
            names = list(itertools.takewhile(str.isalpha, words[1:3]))
            done = subprocess.run(
                [Path(sys.executable).parent / "stellwerk", *names, "--help"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{line}: {done.stderr}"
