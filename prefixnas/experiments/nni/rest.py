"""Requests to NNI: plain JSON over HTTP, by the standard library alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

_OPENER = build_opener(ProxyHandler({}))
"""No proxy from the environment stands in between."""


def send(method: str, url: str, body: Any = None) -> str:
    """Send a request, with JSON if there is a body; return what is answered.

    Raises:
        OSError: Nobody answers; `HTTPError`: the answer is no success.
    """
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with _OPENER.open(request, timeout=30) as answer:
            return str(answer.read().decode("utf-8"))
    except HTTPException as error:
        raise OSError(repr(error)) from error


@dataclass(frozen=True)
class Rest:
    """The manager's interface.

    Attributes:
        host: Where it listens.
        port: Its port.
        secret: The first part of every path.
    """

    host: str
    port: int
    secret: str

    @property
    def url(self) -> str:
        """The address of the web interface."""
        return f"http://{self.host}:{self.port}/{self.secret}/"

    def get(self, path: str) -> Any:
        """Ask for something; see `call`."""
        return self.call("GET", path)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return the answer: JSON, or the text that it is.

        Raises:
            OSError: Nobody answers, or the answer is no success.
        """
        try:
            content = send(method, f"{self.url}api/v1/nni{path}", body)
        except HTTPError as error:
            said = error.read().decode("utf-8", "replace")[:200]
            raise OSError(f"{method} {path}: {error.code} {said}") from error
        try:
            return json.loads(content) if content else None
        except ValueError:
            return content
