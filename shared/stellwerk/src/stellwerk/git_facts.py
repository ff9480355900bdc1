"""Where a source folder stands in git, as properties of the run that takes it along."""

import re
import subprocess
from pathlib import Path

_PATIENCE_S = 5.0
_PASSWORD = re.compile(r"(?<=//)[^/@]+@")


def git_properties(folder: Path) -> dict[str, str | None]:
    """Repository, branch, commit and whether there are changes; {} outside git or without it.

    Names are those of the v1 SDK. A password in the repository's address is left out.
    """
    top = folder.resolve()
    if not any((each / ".git").exists() for each in (top, *top.parents)):
        return {}
    commit = _git(top, "rev-parse", "HEAD")
    if commit is None:
        return {}
    repository = _git(top, "config", "--get", "remote.origin.url")
    repository = _PASSWORD.sub("", repository) if repository else None
    branch = _git(top, "rev-parse", "--abbrev-ref", "HEAD")
    changes = _git(top, "status", "--porcelain", "--untracked-files=no")
    dirty = None if changes is None else str(bool(changes))
    facts = {
        "azureml.git.repository_uri": repository,
        "mlflow.source.git.repoURL": repository,
        "azureml.git.branch": branch,
        "mlflow.source.git.branch": branch,
        "azureml.git.commit": commit,
        "mlflow.source.git.commit": commit,
        "azureml.git.dirty": dirty,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None where it cannot say."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
