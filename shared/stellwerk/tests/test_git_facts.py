"""What a run remembers of the git repository its source came from."""

import subprocess
from pathlib import Path

from stellwerk.git_facts import git_properties


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def test_outside_git_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert git_properties(tmp_path) == {}


def test_branch_commit_changes_and_address_without_its_password(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.py").write_text("1\n")
    git(tmp_path, "init", "-b", "trunk")
    assert git_properties(source) == {}  # no commit yet
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "remote", "add", "origin", "https://me:secret@example.org/a/b.git")
    facts = git_properties(source)
    assert facts["azureml.git.repository_uri"] == "https://example.org/a/b.git"
    assert facts["mlflow.source.git.branch"] == facts["azureml.git.branch"] == "trunk"
    assert facts["azureml.git.dirty"] == "False"
    assert len(facts["azureml.git.commit"] or "") == 40
    (source / "train.py").write_text("2\n")
    assert git_properties(source)["azureml.git.dirty"] == "True"
