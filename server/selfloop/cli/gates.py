"""`selfloop gate …`: read what waits for a decision, and decide it.

Invariants: a decision carries the digests of what was shown. At a terminal the gate is shown and asked about first; a
script binds itself with `--digest`, or decides what is there when it runs. What an approval has a server do (a commit,
a comment, a swap) is waited for, since the server may end with the command.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Literal

import click

from selfloop.cli import showing
from selfloop.cli.client import Client, Severity, Window
from selfloop.errors import RequestFailed, Stale, Unknown
from selfloop.lsp.loop_messages import RunReadResult, RunRef
from selfloop.lsp.protocol import (
    ChangeUndoParams,
    ChangeUndoResult,
    Conflict,
    Empty,
    GateListParams,
    GateListResult,
    GateReadParams,
    GateReadResult,
    GateResolveParams,
    GateResolveResult,
    HunkRef,
    StatusResult,
)
from selfloop.updates import Gate, GateInfo, Generation, RunUpdate, UpdateEnvelope, encoder

State = Literal["open", "resolved", "stale", "expired", "cancelled"]
Kind = Literal["allow_once", "allow_always", "reject_once"]
_LOOK_SECONDS = 2.0
"""So often it is looked what became of an approval that nothing was heard of."""
_CARRIED_SECONDS = 900.0
"""A commit runs the user's own hooks, which take what they take."""
_SWAP_ENDS = ("active", "settled", "rolled-back", "refused")


class DecisionWindow(Window):
    """A terminal that hears what becomes of an approval."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.waits = False
        """What becomes of it is asked for, so that sentences about it need not be shown as they come."""
        self.swapped: Generation | None = None
        """How the last swap has ended."""

    def update(self, envelope: UpdateEnvelope) -> None:
        """Have whoever waits look again."""
        super().update(envelope)
        if isinstance(envelope.update, Generation) and envelope.update.state in _SWAP_ENDS:
            self.swapped = envelope.update
        if isinstance(envelope.update, RunUpdate | Gate | Generation):
            self.news.set()

    def message(self, severity: Severity, text: str) -> None:
        """Show a sentence of the server."""
        if not self.waits:
            super().message(severity, text)


async def list_gates(client: Client, state: State | None, *, as_json: bool) -> int:
    """Print the gates, oldest first."""
    result = await client.ask("selfloop/gate/list", GateListParams(state=state), GateListResult)
    if as_json:
        click.echo(encoder.encode(result))
    elif result.gates:
        click.echo(showing.rows([showing.gate_line(gate) for gate in result.gates]))
    else:
        click.echo(f"There is no {state} gate here." if state else "There is no gate here.")
    return 0


async def show(client: Client, gate_id: str | None, *, as_json: bool) -> int:
    """Print a gate with every change that it would make."""
    view = await _read(client, gate_id)
    if as_json:
        click.echo(encoder.encode(view))
    else:
        showing.console().print(showing.gate(view, await _root(client)))
    return 0


async def decide(
    client: Client,
    window: DecisionWindow,
    gate_id: str | None,
    kind: Kind,
    *,
    hunk_ids: Sequence[str],
    digest: str | None,
    comment: str | None,
    ask: bool,
    as_json: bool,
) -> int:
    """Decide a gate, or some of its hunks.

    Args:
        gate_id: None: the only one that is open.
        hunk_ids: none: everything that is still pending.
        digest: refuse unless the gate's digest is this one; None: as it is now.
        ask: show the gate and ask before anything is decided.

    Returns:
        The exit code: 1 when a conflict or a failure kept the decision from being carried out.
    """
    view = await _read(client, gate_id)
    if digest is not None and digest != view.gate.digest:
        raise Stale(
            f"Gate {view.gate.gate_id} has changed since the digest {digest} was shown, so nothing was decided; "
            f"look at it again with `selfloop gate show {view.gate.gate_id}`."
        )
    if ask:
        showing.console(stderr=True).print(showing.gate(view, await _root(client)))
        what = f"{len(hunk_ids)} hunk(s) of this gate" if hunk_ids else "this gate"
        if not click.confirm(f"{_VERBS[kind]} {what}?", err=True):
            raise RequestFailed("Nothing was decided; the gate stays as it is.")
    subject = view.gate.subject.get("type")
    # A swap is heard of once, so that only a first approval can wait for one.
    window.waits = kind == "allow_once" and (
        subject == "action" or (subject == "evolution" and view.gate.state == "open")
    )
    result = await client.ask(
        "selfloop/gate/resolve",
        GateResolveParams(
            gate_id=view.gate.gate_id,
            option_id=option_of(view.gate, kind),
            digest=None if hunk_ids else view.gate.digest,
            hunks=_refs(view, hunk_ids) if hunk_ids else None,
            comment=comment,
        ),
        GateResolveResult,
    )
    if as_json:
        click.echo(encoder.encode(result))
    else:
        _tell(result.applied, result.conflicts, await _root(client))
        click.echo(
            f"The gate is {result.gate.state}{f' ({result.gate.resolved_by})' if result.gate.resolved_by else ''}."
        )
    if window.waits:
        return await _carried_out(client, window, result.gate, quiet=as_json)
    return 1 if result.conflicts else 0


async def _carried_out(client: Client, window: DecisionWindow, gate: GateInfo, *, quiet: bool) -> int:
    """Wait until what was approved is carried out or has failed, say which, and return the exit code."""
    if not quiet:
        click.echo("It is being carried out …", err=True)
    try:
        async with asyncio.timeout(_CARRIED_SECONDS):
            while (told := await _outcome(client, window, gate)) is None:
                window.news.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(window.news.wait(), _LOOK_SECONDS)
    except TimeoutError:
        raise RequestFailed(
            f"What was approved is not known to be carried out after {_CARRIED_SECONDS:.0f} s; it goes on when an "
            f"editor or `selfloop loop watch` has the folder open. Look at `selfloop run show {gate.run_id}`."
        ) from None
    good, sentence = told
    click.echo(showing.visible(showing.said(sentence)), err=quiet or not good)
    return 0 if good else 1


async def _outcome(client: Client, window: DecisionWindow, gate: GateInfo) -> tuple[bool, str] | None:
    """Return whether what was approved was carried out, and a sentence on it; None: that is not known yet."""
    everything = (await client.ask("selfloop/gate/list", GateListParams(), GateListResult)).gates
    alike = [
        one for one in everything if one.run_id == gate.run_id and one.subject.get("type") == gate.subject.get("type")
    ]
    mine = gate.subject.get("index")
    again = next((one for one in alike if one.state == "open" and one.subject.get("index") == mine), None)
    if again is not None:
        why = again.description or "It was not carried out."
        return False, f"{why}\nIt waits for you again: `selfloop gate show {again.gate_id}`."
    if gate.subject.get("type") == "evolution":
        return _swap_of(window)
    if gate.run_id is None:
        return None
    run = (await client.ask("selfloop/run/read", RunRef(run_id=gate.run_id), RunReadResult)).run
    receipts = [receipt for receipt in run.receipts if receipt.kind == gate.subject.get("kind")] if run else []
    # Receipts do not name their gates, but each action that was approved and is not asked about again has one.
    still_open = {one.subject.get("index") for one in alike if one.state == "open"}
    approved = {one.subject.get("index") for one in alike if one.resolved_by == gate.resolved_by} - still_open
    if not receipts or len(receipts) < len(approved):
        return None
    return True, f"receipt: {receipts[-1].summary}"


def _swap_of(window: DecisionWindow) -> tuple[bool, str] | None:
    end = window.swapped
    if end is None:
        return None
    if end.state in ("active", "settled"):
        return True, f"Generation {end.number} serves now."
    why = f": {end.reason}" if end.reason else "."
    return False, f"Generation {end.number} was added, but does not serve ({end.state}){why}"


async def undo(client: Client, gate_id: str, *, as_json: bool) -> int:
    """Take back what a gate applied."""
    result = await client.ask("selfloop/change/undo", ChangeUndoParams(gate_id=gate_id), ChangeUndoResult)
    if as_json:
        click.echo(encoder.encode(result))
    else:
        _tell(result.applied, result.conflicts, await _root(client), verb="restored")
        if result.applied:
            await _tell_open_again(client, gate_id)
        elif not result.conflicts:
            click.echo("Nothing of this gate is in the files, so nothing was taken back.")
    return 1 if result.conflicts else 0


async def _tell_open_again(client: Client, gate_id: str) -> None:
    """Say which gate has what was taken back: the same if it is open, else the session's next one."""
    everything = (await client.ask("selfloop/gate/list", GateListParams(), GateListResult)).gates
    session_id = next((gate.session_id for gate in everything if gate.gate_id == gate_id), None)
    for gate in everything:
        if gate.state == "open" and gate.session_id == session_id and gate.subject.get("type") == "changes":
            click.echo(f"It waits for you again: `selfloop gate show {gate.gate_id}`.")


def option_of(gate: GateInfo, kind: Kind) -> str:
    """Return the id of the gate's option of a kind.

    Raises:
        Unknown: the gate has none.
    """
    option = next((option for option in gate.options if option.kind == kind), None)
    if option is None:
        raise Unknown("Option", {"allow_once": "approve", "allow_always": "always", "reject_once": "reject"}[kind])
    return option.option_id


_VERBS: dict[Kind, str] = {
    "allow_once": "Approve",
    "allow_always": "Approve, and always from now on,",
    "reject_once": "Reject",
}


async def _read(client: Client, gate_id: str | None) -> GateReadResult:
    if gate_id is None:
        result = await client.ask("selfloop/gate/list", GateListParams(state="open"), GateListResult)
        if len(result.gates) != 1:
            ids = ", ".join(gate.gate_id for gate in result.gates)
            raise RequestFailed(
                f"{len(result.gates)} gates are open ({ids}), so nothing was done; name one of them."
                if result.gates
                else "No gate is open here, so nothing was done; `selfloop gate list --all` shows the decided ones."
            )
        gate_id = result.gates[0].gate_id
    return await client.ask("selfloop/gate/read", GateReadParams(gate_id=gate_id), GateReadResult)


def _refs(view: GateReadResult, hunk_ids: Sequence[str]) -> list[HunkRef]:
    digests = {hunk.hunk_id: hunk.digest for file in view.files for hunk in file.hunks}
    for hunk_id in hunk_ids:
        if hunk_id not in digests:
            raise Unknown("Hunk", hunk_id)
    return [HunkRef(hunk_id=hunk_id, digest=digests[hunk_id]) for hunk_id in dict.fromkeys(hunk_ids)]


async def _root(client: Client) -> str | None:
    folders = (await client.ask("selfloop/status", Empty(), StatusResult)).folders
    return folders[0] if folders else None


def _tell(applied: Sequence[str], conflicts: Sequence[Conflict], root: str | None, *, verb: str = "applied") -> None:
    for uri in applied:
        click.echo(f"{verb}: {showing.name_of(uri, root)}")
    for conflict in conflicts:
        click.echo(f"conflict: {showing.name_of(conflict.uri, root)}: {showing.visible(conflict.reason)}", err=True)
