"""Asks the model; nobody else does."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from selfloop.config import Settings
from selfloop.errors import Refused


class Call:
    """One streamed answer; `close` from another thread ends it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        parts = urlsplit(settings.base_url)
        self._path = parts.path
        self._link = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=30)
        self._socket: socket.socket | None = None
        self.closed = False

    def ask(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the answer's deltas."""
        body = {"model": self._settings.model, "messages": messages, "tools": tools, "stream": True}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._settings.api_key}"}
        try:
            self._link.request("POST", f"{self._path}/chat/completions", json.dumps(body), headers)
            self._socket = self._link.sock
            answer = self._link.getresponse()
            if answer.status != 200:
                raise Refused(f"The model answered {answer.status}, so the turn ends.")
            for line in answer:
                text = line.decode().strip()
                if text == "data: [DONE]":
                    return
                if text.startswith("data: "):
                    yield from (choice.get("delta") or {} for choice in json.loads(text[6:]).get("choices", ()))
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            if not self.closed:
                raise Refused(f"The model could not be asked ({type(error).__name__}).") from error

    def close(self) -> None:
        """End it."""
        self.closed = True
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


Asked = Callable[[list[dict[str, Any]], list[dict[str, Any]]], Iterator[dict[str, Any]]]
"""What a turn is given to ask with."""
