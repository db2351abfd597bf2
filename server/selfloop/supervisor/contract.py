"""What the supervisor and the rooms around it agree on: limits, method names, and which requests only read.

Constants and pure functions only; the values of the worker pipe are described in `server/ARCHITECTURE.md`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # The `typing` module costs 3 ms where the editor waits, so it is never imported at run time.
    from typing import Any

MEBIBYTE = 1024 * 1024

CLIENT_FRAME_BYTES = 16 * MEBIBYTE
"""The largest message of a client."""
WORKER_FRAME_BYTES = 256 * MEBIBYTE
"""The largest message of a worker, or of another supervisor."""
READ_BYTES = 64 * 1024
"""How much is read at a time; the allocator takes more than 128 KiB from the kernel anew each time, at 12 µs."""

COALESCE_BYTES = 256 * 1024
"""With more than this waiting for the worker, changes of a document become one change of its whole text."""
PAUSE_BYTES = 4 * MEBIBYTE
"""With more than this waiting for the worker, no client is read."""
UPDATE_BYTES = 8 * MEBIBYTE
"""With more than this waiting for a client, its updates are withheld and later asked for again."""
WINDOW_BYTES = 64 * MEBIBYTE
"""With more than this waiting for a client, it is given up; as much may be in flight from it."""

DEATHS = 5
"""Deaths in a row, without one answered request between them, after which no worker is started."""
ASKED = 3
"""How often a read is asked at most, the first time included: it may be what kills the worker."""
STOP_SECONDS = 5.0
"""How long a worker may take to end when it is told to."""
SILENCE_SECONDS = 20.0
"""After this long without a sound, while somebody waits for it, a worker is asked whether it is there."""
HUNG_SECONDS = 60.0
"""After this long without an answer to that, it is killed."""

UPDATE = "selfloop/update"
SET_KEY = "selfloop/model/setKey"
RESTART = "selfloop/restart"
DELETE = "selfloop/session/delete"
OUTCOMES = "control/outcomes"
PING = "control/ping"
RESEND = "control/resend"

READS = frozenset(
    {
        "selfloop/session/list",
        "selfloop/session/queue",
        "selfloop/session/read",
        "selfloop/changes/read",
        "selfloop/gate/list",
        "selfloop/gate/read",
        "selfloop/loop/list",
        "selfloop/run/list",
        "selfloop/run/read",
        "selfloop/spend/list",
        "selfloop/model/list",
        "selfloop/model/discover",
        "selfloop/rule/list",
        "selfloop/status",
    }
)
"""The methods of our own that change nothing: exactly those with `reads` in `lsp/protocol.py`."""

STANDARD_READS = frozenset({"workspace/symbol", "workspace/diagnostic", "workspace/textDocumentContent"})
STANDARD_READ_PREFIXES = ("textDocument/", "callHierarchy/", "typeHierarchy/")


def is_read(method: str, params: Any) -> bool:
    """Tell whether a request changes nothing, so that it can be asked again of a new worker."""
    if method == "workspace/executeCommand":
        command = params.get("command") if isinstance(params, dict) else None
        return isinstance(command, str) and command.replace(".", "/") in READS
    if method.startswith("selfloop/"):
        return method in READS
    return method in STANDARD_READS or method.startswith(STANDARD_READ_PREFIXES) or method.endswith("/resolve")


def is_restart(method: str, params: Any) -> bool:
    """Tell whether a request asks for a new worker, as a request or as a command."""
    if method == "workspace/executeCommand":
        return isinstance(params, dict) and params.get("command") == "selfloop.restart"
    return method == RESTART
