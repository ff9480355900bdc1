"""The container part of an environment: an image, a Dockerfile, or a folder with one. Pure."""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from stellwerk.dockerfile import check_dockerfile
from stellwerk.environment_requirement import InvalidEnvironment

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?/)?"
_NAME = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
_IMAGE = re.compile(rf"{_HOST}{_NAME}(?::[\w][\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?")
_ID = re.compile(r"sha256:[0-9a-f]{64}")
DOCKERFILE = "Dockerfile"


class BuildContext(BaseModel):
    """A folder that was uploaded as a snapshot, and its Dockerfile's path within it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    snapshot: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    dockerfile: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = DOCKERFILE


class Container(BaseModel):
    """What an environment stands on, one of the three. ``strict``: exactly, or not at all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str | None = None
    dockerfile: str | None = None
    context: BuildContext | None = None
    strict: bool = Field(False, exclude_if=lambda strict: not strict)

    @property
    def field(self) -> str:
        """The field of the definition that says so."""
        return "image" if self.image else "dockerfile" if self.dockerfile else "build_context"


def container(
    image: str | None, dockerfile: str | None, context: BuildContext | None, *, strict: bool = False
) -> Container:
    """Checked. Raises InvalidEnvironment that names the field."""
    given = [
        name
        for name, value in (
            ("image", image), ("dockerfile", dockerfile), ("build_context", context),
        )
        if value is not None
    ]  # fmt: skip
    if len(given) != 1:
        raise InvalidEnvironment(
            "env.container",
            field=given[-1],
            got=" and ".join(given),
            hint="An environment stands on one of them; leave out the others.",
        )
    if image is not None:
        _check_image(image, strict=strict)
    if dockerfile is not None:
        check_dockerfile(dockerfile, "dockerfile")
    return Container(image=image, dockerfile=dockerfile, context=context, strict=strict)


def by_digest(image: str) -> bool:
    """Whether the reference can only ever mean one image."""
    return "@sha256:" in image or _ID.fullmatch(image) is not None


def _check_image(image: str, *, strict: bool) -> None:
    if _ID.fullmatch(image) is None and _IMAGE.fullmatch(image) is None:
        raise InvalidEnvironment(
            "env.image_name",
            field="image",
            got=image,
            hint="Write host/name@sha256:…, or host/name:tag.",
        )
    if strict and not by_digest(image):
        raise InvalidEnvironment(
            "env.image_digest",
            field="image",
            got=image,
            hint="In strict mode an image is named by its digest, since a tag may mean another "
            "one tomorrow: docker image inspect --format '{{index .RepoDigests 0}}' "
            f"{image}",
        )
