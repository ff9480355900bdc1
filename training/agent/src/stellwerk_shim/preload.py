"""Loads modules before the fork and says whether a fork may serve. Never loads user code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time

from stellwerk_shim.latent import Words

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from stellwerk_shim.latent import Said

DEVICES = ("/dev/nvidia", "/dev/dri", "/dev/kfd", "/dev/dxg")
"""How the names of GPUs' devices begin: NVIDIA's, all that draw, AMD's, those of WSL."""
HARMLESS_PTH = ("distutils-precedence.pth", "_virtualenv.pth", "-nspkg.pth")
"""Code of setuptools and virtualenv that looks at nothing but the environment it is in."""


class RefusedError(Exception):
    """This process must not serve; the text says why."""


def preload(
    names: list[str], started_with: frozenset[str]
) -> tuple[dict[str, object], dict[str, list[Said]]]:
    """Import `names` as far as they are installed; what is then true of this process.

    `modules`: top-level names that are loaded now and not in `started_with`. `loaded`: which of
    `names` are there. `startup`: code the environment runs in every interpreter. Raises
    RefusedError for a module that does not import, or that has started threads or opened a
    device: neither survives a fork. Besides, what was said while each of them was loaded, by its
    top-level name.
    """
    started = time.monotonic()
    loaded: list[str] = []
    threads, blas, words = _threads(), 0, Words()
    said: dict[str, list[Said]] = {}
    for name in names:
        if not _installed(name):
            continue
        try:
            importlib.import_module(name)
        except Exception as error:
            raise RefusedError(f"{name} does not import: {type(error).__name__}: {error}") from None
        loaded.append(name)
        said.setdefault(name.partition(".")[0], []).extend(words.take())
        if name == "numpy":
            blas = _threads() - threads  # those of its BLAS, which handles forks itself
    words.close()
    _check(threads + blas * max(1, _blas_libraries()))
    fresh = {name.partition(".")[0] for name in set(sys.modules) - started_with}
    told = {
        "loaded": loaded,
        "modules": sorted(fresh),
        "seconds": time.monotonic() - started,
        "python": sys.version.split()[0],
        "startup": startup_code(),
    }
    return told, said


def write_origins(path: str) -> None:
    """Write what this process was made of to `path`, one name a line.

    The interpreter, its settings, the folders it searches, the `.pth` files in them, every module
    and every library: as long as they are what they were, a new interpreter would be the same.
    """
    own = os.path.dirname(os.path.abspath(__file__))
    found = {sys.executable, *sys.path}
    for folder in (os.path.dirname(sys.executable), sys.prefix):
        found.add(os.path.join(folder, "pyvenv.cfg"))
    for module in list(sys.modules.values()):
        own_names = getattr(module, "__dict__", {})  # a module that answers any name is no help
        found.add(own_names.get("__file__") or "")
        found.update(own_names.get("__path__") or ())
    with open("/proc/self/maps") as maps:
        found.update(line.split(None, 5)[-1].strip() for line in maps if "/" in line)
    found.update(_pth_files())
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as out:
        for name in sorted(found):
            if name.startswith("/") and "\n" not in name and not name.startswith(own):
                out.write(name + "\n")


def startup_code() -> list[str]:
    """What this environment runs when an interpreter starts: it may look at what a run is."""
    code = [
        os.path.basename(path)
        for path in _pth_files()
        if not path.endswith(HARMLESS_PTH) and not _editable(path) and _has_code(path)
    ]
    return [name for name in ("sitecustomize", "usercustomize") if name in sys.modules] + code


def _pth_files() -> list[str]:
    found = []
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        found += [os.path.join(folder, name) for name in sorted(names) if name.endswith(".pth")]
    return found


def _editable(path: str) -> bool:
    return os.path.basename(path).startswith("__editable__")


def _has_code(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            return any(line.startswith(("import ", "import\t")) for line in source)
    except OSError:
        return True


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _check(threads: int) -> None:
    threading = sys.modules.get("threading")
    if (threading is not None and threading.active_count() > 1) or _threads() > threads:
        raise RefusedError(f"the preloaded modules have started {_threads() - threads} threads")
    context = sys.modules.get("tensorflow.python.eager.context")
    if context is not None and context.context()._context_handle is not None:
        raise RefusedError("TensorFlow has initialised its devices")
    for name in _open_or_mapped():
        if name.startswith(DEVICES):
            raise RefusedError(f"the preloaded modules have opened {name}")


def _open_or_mapped() -> list[str]:
    names = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{entry}"))
        except OSError:
            continue  # the one that listed them
    with open("/proc/self/maps") as maps:
        return names + [line.split(None, 5)[5] for line in maps if "/dev/" in line]


def _blas_libraries() -> int:
    """How many OpenBLAS there are: SciPy brings another than NumPy's, as many threads each."""
    with open("/proc/self/maps") as maps:
        return len({line.split()[-1] for line in maps if "openblas" in line})


def _threads() -> int:
    """Threads of this process, native ones too."""
    return len(os.listdir("/proc/self/task"))
