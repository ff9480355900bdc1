"""Secrets of the workspace, read over the REST interface with the run's own token."""

import os

from stellwerk_agent.errors import RunEnvironmentError, UserError

TYPE_CHECKING = False  # typing itself would cost milliseconds in every run
if TYPE_CHECKING:
    from typing import Optional

TIMEOUT_S = 30.0


def read(name: str) -> "Optional[str]":
    """Return the value of a secret, None where there is none of that name.

    Raises RunEnvironmentError where the platform cannot be asked, UserError where it refuses.
    """
    import json
    from urllib.error import HTTPError
    from urllib.parse import quote
    from urllib.request import ProxyHandler, Request, build_opener

    url, token = os.environ.get("STELLWERK_URL"), os.environ.get("STELLWERK_TOKEN")
    if not url or not token:
        raise RunEnvironmentError(
            "secret '%s': STELLWERK_URL and STELLWERK_TOKEN are not set" % name
        )
    address = "%s/api/v1/secrets/%s" % (url, quote(name, safe=""))
    request = Request(address, headers={"Authorization": "Bearer " + token})
    try:
        # Without proxies: the gateway is where the executor says it is.
        with build_opener(ProxyHandler({})).open(request, timeout=TIMEOUT_S) as answer:
            value = json.loads(answer.read().decode("utf-8"))["value"]
            return str(value)
    except HTTPError as error:
        problem = json.loads(error.read().decode("utf-8"))
        if problem.get("code") == "secret.not_found":
            return None
        raise UserError("secret '%s': %s" % (name, problem.get("detail", error.code)))
    except OSError as error:
        raise RunEnvironmentError(
            "secret '%s': the platform at %s cannot be reached: %s" % (name, url, error)
        )
