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

PATIENCE_SECONDS = 60.0
"""How long a swap waits for tools that run; then they are cut off, as by a crash."""
VERIFY_SLICE_BYTES = 256 * 1024
"""How much of a generation's folder is read before the windows are served again."""
CANARY_SECONDS = 30.0
"""How long a candidate may take to be primed, and a generation that was started cold to serve."""
HOLD_SECONDS = 1.0
"""How long requests are held back until those before them are answered, once a swap's patience has ended."""
YIELD_SECONDS = 10.0
"""How long a worker may take to let go of its workspaces, and its successor to take them; then it is killed."""
KEPT_BYTES = 4 * MEBIBYTE
"""What a candidate may say before it serves."""

PROBATION_SECONDS = 300.0
"""How long a new generation is watched. SELFLOOP_PROBATION_SECONDS, read by the supervisor alone, is another number."""
HEARTBEAT_SECONDS = 1.0
MISSED_BEATS = 3
"""So many heartbeats without an answer are a hang …"""
EXCUSED_BEATS = 20
"""… but for so many, at most, at which the machine kept the worker waiting: for the disk, or for a processor."""
SLOW_FACTOR = 10
SLOW_SECONDS = 0.5
"""A generation is slow when its median read takes longer than this, and so many times what its parent's took."""
SLOW_READS = 5
"""So few reads say nothing of that."""
SLOW_BEATS = 5
"""So many heartbeats in a row must find it slow: a machine that is busy for a moment is not its fault."""
STARVED_SHARE = 0.25
"""A worker that waited for a processor for so much of the time is not judged slow: the machine is."""
HOG_FACTOR = 4
HOG_BYTES = 1024 * MEBIBYTE
"""A generation is a memory hog when it has more than this resident, and so many times what its parent had."""

BOOTS = 2
"""A generation that failed to start so often in a row is not started again."""
ROLLBACKS = 3
"""After so many, no approval starts another generation until the user activates one by hand."""

UPDATE = "selfloop/update"
SET_KEY = "selfloop/model/setKey"
RESTART = "selfloop/restart"
DELETE = "selfloop/session/delete"
OUTCOMES = "control/outcomes"
PING = "control/ping"
PRIME = "control/prime"
QUIET = "control/quiet"
YIELD = "control/yield"
SWAP_STATE = "control/swapState"
ACTIVATE = "selfloop/generation/activate"
RESEND = "control/resend"

READS = frozenset(
    {
        "selfloop/session/list",
        "selfloop/session/queue",
        "selfloop/session/read",
        "selfloop/changes/read",
        "selfloop/gate/list",
        "selfloop/gate/read",
        "selfloop/generation/graph",
        "selfloop/generation/list",
        "selfloop/generation/read",
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

CHATS = frozenset({"selfloop/session/new", "selfloop/session/prompt", "selfloop/run/start"})
"""What makes it likely that a worker will soon need the model library."""
LIGHT_READS = frozenset(
    {"selfloop/session/list", "selfloop/gate/list", "selfloop/rule/list", "selfloop/status"},
)
"""Reads that a worker still answers while its successor takes over: they open, repair and start nothing."""

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


_EVOLVABLE_FILES = frozenset(
    {
        "AGENTS.md",
        "README.md",
        "CHANGELOG.md",
        "server/ARCHITECTURE.md",
        "server/selfloop/lsp/code_actions.py",
        "server/selfloop/cli/lines.py",
        "server/selfloop/cli/screen.py",
        "server/selfloop/cli/showing.py",
    }
)
"""Docs, the terminal's rendering, and single modules."""
_SEALED_PROMPTS = frozenset(
    {
        "loop_check",
        "loop_checker",
        "judge_task",
        "reflect",
        "evolve",
        "refine",
        "docs",
        "self-evolution",
    }
)
"""What the checker, the judge and the evolver are told. `tools.md` may evolve: a tool's limits do not stand in it."""
_SEALED_AGENT = frozenset({"tools/toolbox", "tools/shell", "tools/verdicts", "fence"})
"""Modules of `agent/`: which tools a turn may hold, what runs commands, what a verdict is, what fences text."""
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")


def may_evolve(path: str) -> bool:
    """Tell whether a change of ours may touch a file: T2 of the design's safety rules.

    A path that could mean another one on some system (other case, a dot folder, a package that hides a module of the
    same name, bytecode, a conftest) may not. The front matter of a loop never may; the judge looks at that.

    Args:
        path: relative to a generation's root, with slashes.
    """
    if path in _EVOLVABLE_FILES:
        return True
    stem, dot, suffix = path.rpartition(".")
    parts = stem.split("/")
    if not dot or not all(part and set(part) <= _NAME for part in parts):
        return False
    if parts[0] == "prompts":
        return suffix == "md" and len(parts) > 1 and parts[-1] not in _SEALED_PROMPTS
    if parts[:2] == ["tests", "evolved"]:
        return suffix in ("py", "md", "json", "txt") and len(parts) > 2 and parts[-1] != "conftest"
    if suffix != "py":
        return False
    if parts[:3] == ["server", "selfloop", "agent"]:
        inner = parts[3:]
        sealed = any("/".join(inner[:length]) in _SEALED_AGENT for length in range(1, len(inner) + 1))
        return bool(inner) and not sealed
    return parts[:3] == ["server", "selfloop", "lsp"] and len(parts) == 4 and parts[3].startswith("chat")


def activated(method: str, params: Any) -> Any:
    """Return which generation a request activates, as a request or as a command; None: it activates none."""
    if method == "workspace/executeCommand" and isinstance(params, dict):
        arguments = params.get("arguments")
        known = params.get("command") == ACTIVATE.replace("/", ".") and isinstance(arguments, list) and arguments
        method, params = (ACTIVATE, arguments[0]) if known else (method, params)
    return params.get("number") if method == ACTIVATE and isinstance(params, dict) else None
