"""Documents by their text."""

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from stellwerk_kit.documents import Documents


class Note(BaseModel):
    model_config = ConfigDict(frozen=True)

    text: str


def test_what_was_written_is_not_parsed_again() -> None:
    notes = Documents(Note, kept=2)
    note = Note(text="a")
    notes.wrote(note.model_dump_json(), note)
    assert notes.read('{"text":"a"}') is note
    assert notes.read('{"text": "a"}') == note
    with pytest.raises(ValidationError):
        notes.read('{"words":"a"}')


def test_only_so_many_stay() -> None:
    notes = Documents(Note, kept=2)
    first = notes.read('{"text":"1"}')
    assert notes.read('{"text":"1"}') is first
    for number in (2, 3):
        notes.read(f'{{"text":"{number}"}}')
    again = notes.read('{"text":"1"}')
    assert again == first
    assert again is not first
