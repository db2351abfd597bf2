"""`selfloop gate …`: read what waits for a decision, and decide it.

Invariant: a decision carries the digests of what was shown. At a terminal the gate is shown and asked about first; a
script binds itself with `--digest`, or decides what is there when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import click

from selfloop.cli import showing
from selfloop.cli.client import Client
from selfloop.errors import RequestFailed, Stale, Unknown
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
from selfloop.updates import GateInfo, encoder

State = Literal["open", "resolved", "stale", "expired", "cancelled"]
Kind = Literal["allow_once", "allow_always", "reject_once"]


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
        The exit code: 1 when a conflict kept the decision from being carried out.
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
    return 1 if result.conflicts else 0


async def undo(client: Client, gate_id: str, *, as_json: bool) -> int:
    """Take back what a gate applied."""
    result = await client.ask("selfloop/change/undo", ChangeUndoParams(gate_id=gate_id), ChangeUndoResult)
    if as_json:
        click.echo(encoder.encode(result))
    else:
        _tell(result.applied, result.conflicts, await _root(client), verb="restored")
    return 1 if result.conflicts else 0


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
