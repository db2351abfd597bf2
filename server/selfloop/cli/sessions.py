"""`selfloop session …`: which conversations there are, and what was said in them."""

from __future__ import annotations

from collections.abc import Iterator

import click

from selfloop.cli import showing
from selfloop.cli.client import Client
from selfloop.errors import RequestFailed
from selfloop.lsp.protocol import (
    SessionInfo,
    SessionListParams,
    SessionListResult,
    SessionReadParams,
    SessionReadResult,
)
from selfloop.updates import (
    Gate,
    MessageUpdate,
    Notice,
    State,
    Task,
    ToolCallUpdate,
    Update,
    UpdateEnvelope,
    encoder,
)


async def list_sessions(client: Client, *, as_json: bool) -> int:
    """Print the sessions, newest first."""
    result = await client.ask("selfloop/session/list", SessionListParams(), SessionListResult)
    if as_json:
        click.echo(encoder.encode(result))
    elif result.sessions:
        click.echo(showing.rows([session_line(session) for session in result.sessions]))
    else:
        click.echo("There is no session here yet; `selfloop chat` starts one.")
    return 0


async def show(client: Client, session_id: str | None, *, as_json: bool) -> int:
    """Print all that was said and done in a session; without an id, in the newest."""
    if session_id is None:
        known = (await client.ask("selfloop/session/list", SessionListParams(), SessionListResult)).sessions
        if not known:
            raise RequestFailed("There is no session here yet, so nothing was shown; `selfloop chat` starts one.")
        session_id = known[0].session_id
    updates = await history(client, session_id)
    if as_json:
        click.echo(encoder.encode(SessionReadResult(updates=updates, more=False)))
    else:
        click.echo("\n".join(transcript([envelope.update for envelope in updates])))
    return 0


async def history(client: Client, session_id: str) -> list[UpdateEnvelope]:
    """Return every update of a session, oldest first."""
    pages: list[list[UpdateEnvelope]] = []
    before: int | None = None
    while True:
        page = await client.ask(
            "selfloop/session/read", SessionReadParams(session_id=session_id, before=before), SessionReadResult
        )
        pages.append(page.updates)
        if not page.more or not page.updates:
            return [update for page in reversed(pages) for update in page]
        before = page.updates[0].seq


def session_line(session: SessionInfo) -> list[str]:
    """Return a session as a row of a list."""
    tokens = f"{session.input_tokens:,} in, {session.output_tokens:,} out"
    return [session.session_id, session.state, session.updated_at, tokens, showing.visible(session.title)]


def transcript(updates: list[Update]) -> Iterator[str]:
    """Yield what a person would want to read again: messages, finished tool calls, gates and notices."""
    told: dict[str, str] = {}
    """The state that was told last, by gate."""
    for update in updates:
        match update:
            case MessageUpdate(status="removed"):
                yield "(the message was taken out of the queue)"
            case MessageUpdate(role="user"):
                yield f"\n› {showing.visible(update.text)}\n"
            case MessageUpdate():
                cut = "\n(interrupted)" if update.status == "interrupted" else ""
                yield showing.visible(update.text) + cut
            case ToolCallUpdate(status="completed" | "failed"):
                yield tool_line(update)
            case Gate() if told.get(update.gate.gate_id) != update.gate.state:
                told[update.gate.gate_id] = update.gate.state
                yield f"◆ gate {update.gate.gate_id} {update.gate.state}: {showing.visible(update.gate.title)}"
            case Task():
                yield f"— task {update.number} —"
            case Notice():
                yield f"{update.severity}: {showing.visible(showing.said(update.text))}"
            case State(stop_reason=str() as reason) if reason != "end_turn":
                yield f"({stopped(reason)})"


def tool_line(update: ToolCallUpdate) -> str:
    """Return a tool call as one line; of a failed one with the first line of why."""
    if update.status == "completed":
        return f"✓ {one_line(update.title)}"
    reason = one_line(update.output or "") if update.status == "failed" else ""
    return f"{'✗' if update.status == 'failed' else '…'} {one_line(update.title)}{f': {reason}' if reason else ''}"


def one_line(text: str, most: int = 160) -> str:
    """Return the first line of a text, no longer than `most` characters."""
    first = showing.visible(text.strip().split("\n", 1)[0])
    return first if len(first) <= most else first[: most - 1] + "…"


def stopped(reason: str) -> str:
    """Return a stop reason as a person says it."""
    return {
        "max_tokens": "the answer reached its longest length",
        "budget": "the budget of this turn is used up",
        "stuck": "stopped: it went in circles",
        "cancelled": "cancelled",
        "error": "stopped by an error",
    }.get(reason, reason)
