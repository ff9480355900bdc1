"""A registry, spoken to directly (the OCI distribution API): what it has, blobs, manifests.

Calls block; they run on threads. A registry that wants a login gets it the way it asks for: Basic,
or a token that it names the place of. The threads share a token, so each one is asked for with all
that any of them does.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urljoin

import requests
from docker.errors import DockerException

from stellwerk_environment_build.image_engine import ImageSettings
from stellwerk_environment_build.known_layers import Blob
from stellwerk_environment_build.layer_archive import LayerArchive

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"
TIMEOUT_S = 60.0
STORE_S = 900.0
"""So long a registry may think about a layer that it has: it reads, and may copy, all of it."""
_ACTIONS = ("pull", "push")
_SCOPE = re.compile(r"(?P<of>repository:\S+):(?P<actions>[\w,*]*)$")
_WORD = re.compile(r'(\w+)="([^"]*)"')
_SHOWN = 300


class Registry:
    """The repository of environments' images in the registry of ``settings``.

    Methods raise DockerException where it does not answer, or not as it should.
    """

    def __init__(self, settings: ImageSettings) -> None:
        self._root = settings.registry_root
        self._name = settings.repository.partition("/")[2]
        self._path = f"{self._root}/v2/{self._name}"
        self._login = settings.logins.of(settings.repository)
        self._session = requests.Session()
        # Proxies are for what is outside; a registry without TLS is not.
        self._session.trust_env = self._root.startswith("https:")
        self._alone = threading.Lock()

    def close(self) -> None:
        """Close its connections."""
        self._session.close()

    def has(self, digest: str) -> bool:
        """Whether a blob is there."""
        return self._call("HEAD", f"blobs/{digest}", (200, 404)).status_code == 200

    def upload(self, layer: LayerArchive, on_chunk: Callable[[int], None]) -> Blob:
        """Send a layer while it is read; ``on_chunk`` hears of the bytes.

        Of what has to be sent anew it hears as less than none.
        """

        class Told:
            def __init__(self) -> None:
                self._told = 0

            def __len__(self) -> int:
                return len(layer)

            def __iter__(self) -> Iterator[bytes]:
                on_chunk(-self._told)
                self._told = 0
                for chunk in layer:
                    self._told += len(chunk)
                    on_chunk(len(chunk))
                    yield chunk

        told = Told()

        def send() -> None:
            place = self._begin()
            answer = self._call("PATCH", place, (202,), timeout_s=STORE_S, data=told, **_OCTETS)
            self._finish(answer, place, layer.digest)

        try:
            send()
        except DockerException as error:
            # Who refuses, as for a token that has ended, may hang up before all was read.
            if not isinstance(error.__cause__, requests.ConnectionError):
                raise
            send()
        return Blob(digest=layer.digest, size=len(layer))

    def put_blob(self, digest: str, data: bytes) -> None:
        """Store a small blob."""
        place = self._begin()
        self._call("PUT", _with_digest(place, digest), (201,), data=data, **_OCTETS)

    def manifest(self, reference: str) -> dict[str, Any] | None:
        """A manifest by tag or digest."""
        accept = {"Accept": f"{MANIFEST}, application/vnd.oci.image.manifest.v1+json"}
        answer = self._call("GET", f"manifests/{reference}", (200, 404), headers=accept)
        found: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
        return found

    def put_manifest(self, tag: str, manifest: dict[str, Any]) -> str:
        """Store a manifest under a tag; its digest."""
        data = json.dumps(manifest, sort_keys=True).encode()
        headers = {"Content-Type": MANIFEST}
        answer = self._call("PUT", f"manifests/{tag}", (201,), data=data, headers=headers)
        computed = f"sha256:{hashlib.sha256(data).hexdigest()}"  # not every registry names it
        return str(answer.headers.get("Docker-Content-Digest", computed))

    def delete_manifest(self, digest: str) -> None:
        """Delete a manifest; what only it held goes when the registry collects garbage."""
        self._call("DELETE", f"manifests/{digest}", (202, 404))

    def _begin(self) -> str:
        answer = self._call("POST", "blobs/uploads/", (202,), data=b"")
        return urljoin(f"{self._root}/", answer.headers["Location"])

    def _finish(self, answer: requests.Response, place: str, digest: str) -> None:
        place = urljoin(place, answer.headers.get("Location", place))
        self._call("PUT", _with_digest(place, digest), (201,), timeout_s=STORE_S, data=b"")

    def _call(
        self,
        verb: str,
        place: str,
        wanted: tuple[int, ...],
        *,
        timeout_s: float = TIMEOUT_S,
        **options: Any,
    ) -> requests.Response:
        url = place if "://" in place else f"{self._path}/{place}"
        options["timeout"] = (TIMEOUT_S, timeout_s)
        try:
            answer = self._session.request(verb, url, **options)
            if answer.status_code == 401:
                self._answer(answer.headers.get("WWW-Authenticate", ""))
                answer = self._session.request(verb, url, **options)
        except requests.RequestException as error:
            raise DockerException(f"{verb}: {type(error).__name__}: {error}") from error
        if answer.status_code not in wanted:
            raise DockerException(f"{verb}: status {answer.status_code} {answer.text[:_SHOWN]}")
        return answer

    def _answer(self, challenge: str) -> None:
        """Log in as the registry asks."""
        login = (self._login["username"], self._login["password"]) if self._login else None
        with self._alone:
            if not challenge.lower().startswith("bearer"):
                self._session.auth = login
                return
            asked = dict(_WORD.findall(challenge))
            service = {"service": asked["service"]} if "service" in asked else {}
            with requests.Session() as asking:  # another one: it need not see the token before
                asking.trust_env = self._session.trust_env
                token = asking.get(
                    asked.get("realm", ""),
                    params={**service, "scope": self._scope(asked.get("scope", ""))},
                    auth=login,
                    timeout=TIMEOUT_S,
                ).json()
            given = token.get("token") or token.get("access_token")
            self._session.headers["Authorization"] = f"Bearer {given}"

    def _scope(self, asked: str) -> str:
        """What is asked for, and what an upload on another thread needs of the same token."""
        found = _SCOPE.match(asked)
        of = found["of"] if found else f"repository:{self._name}"
        actions = [*_ACTIONS, *(found["actions"].split(",") if found else ())]
        return f"{of}:{','.join(filter(None, dict.fromkeys(actions)))}"


_OCTETS: dict[str, Any] = {"headers": {"Content-Type": "application/octet-stream"}}


def _with_digest(place: str, digest: str) -> str:
    return f"{place}{'&' if '?' in place else '?'}digest={digest}"
