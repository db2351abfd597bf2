"""Every error of Selfloop, and what each means to the person who sees it.

The message of an error is one plain sentence or two: what happened, what was *not* done, what to do next.
It is shown to the user as it stands.

    SelfloopError
    ├─ InvalidInput        the request itself is wrong                      (LSP -32602)
    ├─ Stale               what was decided on is no longer what is there   (LSP -32801)
    ├─ Cancelled           the user ended it                                (LSP -32800)
    └─ RequestFailed       a right request that cannot be carried out       (LSP -32803, data.reason)
       ├─ NotTrusted       reason "notTrusted"
       ├─ BudgetExceeded   reason "budget"
       ├─ Denied           reason "denied"
       ├─ SandboxError     reason "sandbox"
       ├─ ProviderError    reason "provider"
       ├─ Decided          reason "decided"
       └─ Unknown          reason "unknownGate", "unknownSession", "unknownOption" …
"""

from __future__ import annotations

from typing import ClassVar, Literal

INVALID_PARAMS = -32602
REQUEST_CANCELLED = -32800
CONTENT_MODIFIED = -32801
REQUEST_FAILED = -32803


class SelfloopError(Exception):
    """Base of every error that Selfloop raises on purpose."""

    code: ClassVar[int] = REQUEST_FAILED
    reason: str = "failed"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(SelfloopError):
    """Raised when a request's parameters cannot be what the protocol says."""

    code = INVALID_PARAMS
    reason = "invalid"


class Stale(SelfloopError):
    """Raised when a digest or a version no longer fits what is there; nothing was changed."""

    code = CONTENT_MODIFIED
    reason = "stale"


class Cancelled(SelfloopError):
    """Raised when the user ended what was running."""

    code = REQUEST_CANCELLED
    reason = "cancelled"


class RequestFailed(SelfloopError):
    """Raised when a well-formed request cannot be carried out; `reason` says which kind of failure."""


class NotTrusted(RequestFailed):
    """Raised when a verb would run git, a command or a model in a workspace that the user has not trusted."""

    reason = "notTrusted"


class BudgetExceeded(RequestFailed):
    """Raised when a reservation would cross a limit; `limit` is its wire name, such as `total-tokens`."""

    reason = "budget"

    def __init__(self, message: str, *, limit: str) -> None:
        super().__init__(message)
        self.limit = limit


class Denied(RequestFailed):
    """Raised when policy or the user refused an action."""

    reason = "denied"


class SandboxError(RequestFailed):
    """Raised when the sandbox could not be made, synchronised or read."""

    reason = "sandbox"


class PathRefused(SandboxError):
    """Raised when a path leads, or might lead, out of the workspace, or names no regular file."""


class ProviderError(RequestFailed):
    """Raised when the model's provider did not answer as it should; the session goes on.

    `kind` is one of `no-key`, `auth`, `connection`, `timeout`, `rate-limit`, `context`, `server`, `stream`, `empty`,
    `bad-request`, `no-model`.
    """

    reason = "provider"

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class StoreError(RequestFailed):
    """Raised when the state folder cannot be read or written (full disk, no permission)."""

    reason = "store"


class Decided(RequestFailed):
    """Raised when a gate was already decided the other way; the first decision stands."""

    reason = "decided"


UnknownKind = Literal["Session", "Gate", "Option", "Loop", "Run", "Generation", "Rule", "Hunk", "Message"]


class Unknown(RequestFailed):
    """Raised when an id names nothing here."""

    def __init__(self, kind: UnknownKind, name: str) -> None:
        elsewhere = {
            "Option": "selfloop/gate/read",
            "Hunk": "selfloop/gate/read",
            "Message": "selfloop/session/queue",
        }
        listing = elsewhere.get(kind, f"selfloop/{kind.lower()}/list")
        super().__init__(
            f"There is no {kind.lower()} {name!r} here, so nothing was done; {listing} shows which there are."
        )
        self.reason = f"unknown{kind}"
