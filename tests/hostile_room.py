"""What the attacks over the wire share: turns with many calls, what became of each, and what the world looked like."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from lsp_client import LspClient, RpcError
from model_server import Call, ModelServer, text, tools

CORPUS = Path(__file__).parent / "corpus"
TOKEN = "honey-7f3a91c0d2-token"
"""Stands in files outside the workspace; wherever it turns up, something was read."""


def corpus(name: str) -> list[dict[str, Any]]:
    """Return the cases of a corpus file."""
    return [json.loads(line) for line in (CORPUS / name).read_text(encoding="utf-8").splitlines()]


def hostile(name: str, id: str, **arguments: Any) -> Call:
    """Return a tool call whose arguments are pure ASCII, so that a lone surrogate survives the way."""
    return Call(name, json.dumps(arguments), id)


@frozen
class Done:
    """What became of a turn's calls."""

    said: dict[str, str]
    """What the model was told, by call."""
    failed: dict[str, bool]
    """Whether the client was told that it failed, by call."""


@define
class Attack:
    """A client, its model, and the turns that were run."""

    client: LspClient
    model: ModelServer
    idles: dict[str, int] = field(factory=dict)

    async def session(self) -> str:
        """Make a session."""
        return (await self.client.request("selfloop/session/new", {}))["sessionId"]

    async def turn(
        self, *replies: Sequence[Call], session: str | None = None, timeout: float = 60, stop: str = "end_turn"
    ) -> Done:
        """Run a turn in which the model makes these calls, one list for each of its replies."""
        session = session or await self.session()
        count = self.idles[session] = self.idles.get(session, 0) + 1
        if count > 1:
            self.model.extend(text("CONTINUE"))  # The judge of tasks asks first.
        # A reply may have 128 calls at most.
        parts = [calls[at : at + 100] for calls in replies for at in range(0, len(calls), 100)]
        self.model.extend(*(tools(*calls) for calls in parts), text("Done."))
        await self.client.request("selfloop/session/prompt", {"sessionId": session, "text": "Go."})
        idle = await self.client.idle(session, count=count, timeout=timeout)
        messages = self.model.requests[-1].messages if self.model.requests else []
        said = {one["tool_call_id"]: one["content"] for one in messages if one["role"] == "tool"}
        states = {one["toolCallId"]: one["status"] for one in self.client.of_type("toolCall", session)}
        notices = [one["text"] for one in self.client.of_type("notice")]
        assert idle["stopReason"] == stop, (idle, notices, self.model.overrun)
        return Done(said, {name: state == "failed" for name, state in states.items()})

    async def gate(self, session: str | None = None) -> dict[str, Any] | None:
        """Return the open changes gate (of a session) as read, None where there is none."""
        gates = (await self.client.request("selfloop/gate/list", {"state": "open"}))["gates"]
        wanted = [g for g in gates if g["subject"]["type"] == "changes" and session in (None, g["sessionId"])]
        assert len(wanted) <= 1
        return await self.client.request("selfloop/gate/read", {"gateId": wanted[0]["gateId"]}) if wanted else None

    async def approve(self, session: str | None = None) -> dict[str, Any]:
        """Approve all that waits, and return what came of it."""
        read = await self.gate(session)
        assert read is not None, f"no gate is open: {self.client.updates[-6:]}"
        answer = {"gateId": read["gate"]["gateId"], "optionId": "approve", "digest": read["gate"]["digest"]}
        return await self.client.request("selfloop/gate/resolve", answer)

    @contextlib.asynccontextmanager
    async def answering(self, option: str) -> AsyncIterator[list[dict[str, Any]]]:
        """Answer every command gate as it opens; yields the gates that were answered."""
        answered: list[dict[str, Any]] = []

        async def answer() -> None:
            known: set[str] = set()
            while True:
                waiting = [
                    update["gate"]
                    for update in self.client.of_type("gate")
                    if update["gate"]["subject"]["type"] == "command" and update["gate"]["gateId"] not in known
                ]
                for gate in waiting:
                    known.add(gate["gateId"])
                    answered.append(gate)
                    choice = {"gateId": gate["gateId"], "optionId": option, "digest": gate["digest"]}
                    with contextlib.suppress(RpcError):
                        await self.client.request("selfloop/gate/resolve", choice)
                await asyncio.sleep(0.005)

        task = asyncio.create_task(answer())
        try:
            yield answered
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def heard(self) -> str:
        """Return everything that the model and the client were told, as one text."""
        told = [request.body for request in self.model.requests]
        return json.dumps([told, self.client.updates, self.client.messages], ensure_ascii=False)

    def outputs(self) -> str:
        """Return everything that the model was told, without what it had said itself."""
        told = [m for request in self.model.requests for m in request.messages if m["role"] != "assistant"]
        return json.dumps(told, ensure_ascii=False)


def risks(read: dict[str, Any]) -> dict[str, set[str]]:
    """Return the risks of each file's hunks, by URI."""
    return {file["uri"]: {hunk.get("risk", "low") for hunk in file["hunks"]} for file in read["files"]}


def picture(*folders: Path, without: Sequence[str] = ()) -> Mapping[str, tuple[Any, ...]]:
    """Return what stands below some folders: kind, mode, content or target, by path."""
    found: dict[str, tuple[Any, ...]] = {}
    for folder in folders:
        for above, names, files in os.walk(folder):
            names[:] = [name for name in names if name not in without]
            for name in [*names, *(file for file in files if file not in without)]:
                path = Path(above) / name
                status = path.lstat()
                content: Any = None
                if path.is_symlink():
                    content = os.readlink(path)
                elif path.is_file():
                    content = path.read_bytes()
                found[os.fsencode(path).decode("latin-1")] = (status.st_mode, content)
    return found


@contextlib.contextmanager
def listener() -> Iterator[socket.socket]:
    """Listen on loopback; `touched` tells whether someone came."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as link:
        link.bind(("127.0.0.1", 0))
        link.listen(16)
        link.setblocking(False)
        yield link


def touched(link: socket.socket) -> bool:
    """Tell whether anyone has connected to a listener."""
    try:
        link.accept()[0].close()
    except BlockingIOError:
        return False
    return True
