"""Requests to NNI's manager."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any


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
        """Send a request and return the answer.

        Raises:
            OSError: Nobody answers, or the answer is no success.
        """
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            headers = {"Content-Type": "application/json"}
            text = None if body is None else json.dumps(body)
            connection.request(method, f"/{self.secret}/api/v1/nni{path}", text, headers)
            answer = connection.getresponse()
            content = answer.read().decode("utf-8")
        except http.client.HTTPException as error:
            raise OSError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status} {content[:200]}")
        try:
            return json.loads(content) if content else None
        except ValueError:
            return content
