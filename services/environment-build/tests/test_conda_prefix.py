"""Scripts of an environment that was installed elsewhere than it will lie."""

from pathlib import Path

import pytest

from stellwerk_environment_build.conda_prefix import moved, repoint_scripts

FORMS = ("#!%s/bin/python\nprint()\n", "#!/bin/sh\n'''exec' %s/bin/python \"$0\" \"$@\"\n' '''\n")
"""As an installer writes them, where the path is short and where it is long."""


@pytest.mark.parametrize("form", FORMS)
def test_scripts_start_the_interpreter_at_the_final_place(tmp_path: Path, form: str) -> None:
    here, final = tmp_path / "build", tmp_path / "final"
    info = here / "lib/python3.11/site-packages/alpha-1.0.dist-info"
    for folder in (here / "bin", info):
        folder.mkdir(parents=True)
    (here / "bin/say").write_text(form % here)
    (here / "bin/say").chmod(0o755)
    others = {"data": f"{here}/bin/python", "late": f"#!/bin/sh\n\n{here}/bin/python\n"}
    for name, text in others.items():
        (here / "bin" / name).write_text(text)
    rows = ["../../../bin/say,sha256=x,9\n", "../../../bin/data,sha256=y,9\n", "a.py,sha256=z,1\n"]
    (info / "RECORD").write_text("".join(rows))
    repoint_scripts(here, final)
    assert (here / "bin/say").read_text() == form % final
    assert (here / "bin/say").stat().st_mode & 0o111 == 0o111
    assert {name: (here / "bin" / name).read_text() for name in others} == others
    assert (info / "RECORD").read_text() == "".join(["../../../bin/say,,\n", *rows[1:]])
    (here / "conda-meta").mkdir()
    here.rename(final)
    content = moved(final, "/opt/e")(final / "bin/say")
    assert content == (form % "/opt/e").encode()
