"""The table that ``stellwerk azureml check`` answers from says what is installed, not what is hoped."""

import importlib
import inspect
import re
from typing import Any

import pytest

from azureml._outside import REASONS
from azureml._refusal import Refused
from stellwerk.migration.stub import Entry, Member, table

ENTRIES = [entry for entry in table().entries.values() if entry.modules]
CLASSES = [entry for entry in ENTRIES if entry.kind == "class"]


def installed(entry: Entry) -> Any:
    return getattr(importlib.import_module(entry.modules[0]), entry.name)


def keywords(call: Any) -> set[str]:
    return {
        name
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
    }


def missing_keywords(call: Any, member: Member) -> set[str]:
    return set(member.keywords or ()) - keywords(call)


def has_attribute(cls: type, name: str) -> bool:
    """Whether objects have it: the class does, or one of its methods sets it."""
    if hasattr(cls, name) or name in getattr(cls, "__annotations__", {}):
        return True
    sources = (inspect.getsource(each) for each in cls.__mro__ if each is not object)
    return any(re.search(rf"\b\w+\.{name}\b[^(]*=", source) for source in sources)


def test_what_is_outside_is_refused_with_the_reasons_of_the_table() -> None:
    marked = {path: mark.note for path, mark in table().packages.items()}
    here = {path for path in marked if path.startswith("azureml.train.") and path not in REASONS}
    assert {path: note for path, note in marked.items() if path not in here} == REASONS
    for path in here:
        assert importlib.import_module(path).__file__


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_import_path_gives_the_same_object(entry: Entry) -> None:
    found = {id(getattr(importlib.import_module(path), entry.name)) for path in entry.modules}
    assert len(found) == 1, entry.modules


@pytest.mark.parametrize("entry", CLASSES, ids=lambda entry: entry.name)
def test_members_and_their_keywords_are_there(entry: Entry) -> None:
    cls = installed(entry)
    if entry.mark.status == "not supported":
        assert isinstance(cls, Refused), f"{entry.name} is there; the table calls it refused"
        return
    assert not isinstance(cls, Refused), f"{entry.name} is refused; the table calls it supported"
    wrong = []
    for member in entry.members.values():
        if member.mark.status == "not supported":
            continue
        if member.keywords is None:
            if not has_attribute(cls, member.name):
                wrong.append(f"{entry.name}.{member.name} is not there")
            continue
        call = getattr(cls, member.name, None)
        if call is None:
            wrong.append(f"{entry.name}.{member.name} is not there")
        elif not member.open and (missing := missing_keywords(call, member)):
            wrong.append(f"{entry.name}.{member.name} does not take {sorted(missing)}")
    if entry.call is not None and (missing := missing_keywords(cls, entry.call)):
        wrong.append(f"{entry.name}() does not take {sorted(missing)}")
    assert not wrong, "\n".join(wrong)
