"""What a window still shows, or waits for, on behalf of a worker: what must be taken back when that worker has ended.

Requests of the worker to the editor get ids of the supervisor's own, because a new worker may use an old one's ids
again while the editor still thinks about the old question.
"""

from __future__ import annotations

from selfloop.supervisor import jsonrpc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CANCEL = "$/cancelRequest"


class Shown:
    """Follows one window's messages from the worker."""

    def __init__(self) -> None:
        self._questions: dict[str, int | str] = {}
        """Our id → the worker's, for its requests that the editor has not answered."""
        self._count = 0
        self._progress: dict[int | str, None] = {}
        self._registrations: dict[str, str] = {}
        self._marked: dict[str, None] = {}
        """Files with diagnostics."""
        self._outdated: dict[str, None] = {}
        """Files with diagnostics of a worker that has ended."""

    def follow(self, value: dict[str, Any]) -> bytes | None:
        """Note a request or notification to the editor; return what to send in its place, None to send it as it is."""
        method, params = value["method"], value.get("params")
        if not isinstance(params, dict):
            params = {}
        if jsonrpc.is_id(value.get("id")):
            self._count += 1
            ours = f"selfloop:{self._count}"
            self._questions[ours] = value["id"]
            if method == "client/registerCapability":
                for item in _objects(params.get("registrations")):
                    self._registrations[str(item.get("id"))] = str(item.get("method"))
            elif method == "client/unregisterCapability":
                for item in _objects(params.get("unregisterations")):
                    self._registrations.pop(str(item.get("id")), None)
            return jsonrpc.encode({**value, "id": ours})
        if method == CANCEL:
            for ours, theirs in self._questions.items():
                if theirs == params.get("id"):
                    return jsonrpc.notification(CANCEL, {"id": ours})
        elif method == "$/progress" and jsonrpc.is_id(params.get("token")):
            kind = params["value"].get("kind") if isinstance(params.get("value"), dict) else None
            if kind == "begin":
                self._progress[params["token"]] = None
            elif kind == "end":
                self._progress.pop(params["token"], None)
        elif method == "textDocument/publishDiagnostics" and isinstance(params.get("uri"), str):
            self._outdated.pop(params["uri"], None)
            self._marked.pop(params["uri"], None)
            if params.get("diagnostics"):
                self._marked[params["uri"]] = None
        return None

    def question(self, method: str, params: Any) -> bytes:
        """Return a request of the supervisor's own. The editor's answer finds no question, and is dropped."""
        self._count += 1
        return jsonrpc.request(f"selfloop:{self._count}", method, params)

    def answered(self, value: dict[str, Any]) -> bytes | None:
        """Return the editor's answer as the worker expects it; None: the present worker has not asked that."""
        id = value.get("id")
        theirs = self._questions.pop(id, None) if isinstance(id, str) else None
        return None if theirs is None else jsonrpc.encode({**value, "id": theirs})

    def withdraw(self) -> list[bytes]:
        """Return what takes back questions, progress and registrations now that the worker has ended.

        Its diagnostics stay until `withdraw_marks`, because the next worker will mostly publish the same again.
        """
        messages = [jsonrpc.notification(CANCEL, {"id": ours}) for ours in self._questions]
        for token in self._progress:
            messages.append(jsonrpc.notification("$/progress", {"token": token, "value": {"kind": "end"}}))
        if self._registrations:
            items = [{"id": id, "method": method} for id, method in self._registrations.items()]
            # The field is spelt as LSP spells it.
            messages.append(self.question("client/unregisterCapability", {"unregisterations": items}))
        self._questions.clear()
        self._progress.clear()
        self._registrations.clear()
        self._outdated.update(self._marked)
        self._marked.clear()
        return messages

    def withdraw_marks(self) -> list[bytes]:
        """Return what clears the diagnostics that no worker has published anew."""
        messages = [
            jsonrpc.notification("textDocument/publishDiagnostics", {"uri": uri, "diagnostics": []})
            for uri in self._outdated
        ]
        self._outdated.clear()
        return messages


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
