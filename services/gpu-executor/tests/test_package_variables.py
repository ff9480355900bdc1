"""Variables that conda packages set: the run's, with the environment where that run has it."""

from pathlib import Path

import pytest
from assignments import assigned

from stellwerk.events import ImageInfo
from stellwerk.events.image import ENVIRONMENT_FOLDER
from stellwerk_gpu_executor.domain import Access, Places, environment


@pytest.mark.parametrize("folder", ["/cache/0a1b", "/opt/environment"])
def test_below_all_others_and_with_the_folder_of_the_run(folder: str) -> None:
    image = ImageInfo(
        env_id="e",
        image_variables={"X": "image", "Y": "image"},
        package_variables={
            "X": f"{ENVIRONMENT_FOLDER}/a:{ENVIRONMENT_FOLDER}/b",
            "LANG": "xx",
            "OF_DEFINITION": "packages",
            "OF_RUN": "packages",
        },
        environment_variables={"OF_DEFINITION": "definition", "OF_RUN": "definition"},
    )
    run = assigned("r", "", image=image, spec={"environment_variables": {"OF_RUN": "run"}})
    place = Path("/a")
    places = Places(place, place, place, place, {}, {}, place)
    found = environment(run, f"{folder}/bin/python", places, {}, Access("", 0, "", signed=False))
    assert found["X"] == f"{folder}/a:{folder}/b"
    assert (found["Y"], found["LANG"]) == ("image", "C.UTF-8")
    assert (found["OF_DEFINITION"], found["OF_RUN"]) == ("definition", "run")
