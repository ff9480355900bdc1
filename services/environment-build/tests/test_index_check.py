"""What ``stellwerk doctor`` is told of the package index."""

import os
import socket

from stellwerk_environment_build.index_check import report
from stellwerk_environment_build.uv_command import IndexOptions


def test_an_index_that_does_not_answer_is_told_without_its_password() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://user:topsecret@127.0.0.1:{unused.getsockname()[1]}/simple"
        told = report(IndexOptions(), {"PATH": os.environ["PATH"], "PIP_INDEX_URL": address})
    assert (told["asked"], told["answers"]) == (True, False)
    assert "Connection refused" in str(told["said"])
    assert "topsecret" not in str(told)


def test_where_no_index_is_used_none_is_asked() -> None:
    told = report(IndexOptions(no_index=True), {})
    assert told == {"asked": False, "answers": False, "said": ""}
