"""`selfloop evolve` and `selfloop generation …`: what Selfloop has made of itself, and which of it serves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from selfloop.cli import loops, showing
from selfloop.cli.client import Client, Window
from selfloop.errors import RequestFailed
from selfloop.lsp.evolution_messages import (
    GenerationGraphResult,
    GenerationInfo,
    GenerationListResult,
    GenerationReadResult,
    GenerationRef,
)
from selfloop.lsp.protocol import Empty, RestartResult
from selfloop.updates import Generation, UpdateEnvelope, encoder

_SWAP_SECONDS = 120.0
_ENDS = ("active", "settled", "rolled-back", "refused")


class SwapWindow(Window):
    """A terminal that listens to a swap."""

    def __init__(self) -> None:
        self.states: asyncio.Queue[Generation] = asyncio.Queue()

    def update(self, envelope: UpdateEnvelope) -> None:
        """Note where a swap is."""
        super().update(envelope)
        if isinstance(envelope.update, Generation):
            self.states.put_nowait(envelope.update)


async def evolve(client: Client, window: loops.RunWindow, *, as_json: bool) -> int:
    """Run one evolution now, to its gate or to what ended it; the code is that of its outcome."""
    return await loops.run(client, window, loops.EVOLUTION, as_json=as_json)


async def list_all(client: Client, *, as_json: bool) -> int:
    """Print every generation, the one that serves marked."""
    result = await client.ask("selfloop/generation/list", Empty(), GenerationListResult)
    if as_json:
        click.echo(encoder.encode(result))
        return 0
    click.echo(showing.rows([_row(one, result.active) for one in result.generations]))
    if result.paused is not None:
        click.echo(f"note: {showing.visible(result.paused)}", err=True)
    return 0


def _row(one: GenerationInfo, active: int) -> list[str]:
    return [
        "*" if one.number == active else " ",
        str(one.number),
        "-" if one.parent is None else f"from {one.parent}",
        one.state,
        one.created_at[:16],
        showing.visible(" ".join(one.summary.split())),
    ]


async def show(client: Client, number: int, *, as_json: bool) -> int:
    """Print a generation: what it changed, what proved it, what it learned from."""
    result = await client.ask("selfloop/generation/read", GenerationRef(number=number), GenerationReadResult)
    if as_json:
        click.echo(encoder.encode(result))
        return 0
    one = result.generation
    tokens = f"{one.tokens.input_tokens:,} in / {one.tokens.output_tokens:,} out"
    rows = [
        ["generation", str(one.number) + ("" if one.parent is None else f", from {one.parent}")],
        ["state", one.state + (f": {showing.visible(one.reason)}" if one.reason else "")],
        ["summary", showing.visible(" ".join(one.summary.split()))],
        ["learned", showing.visible(" ".join((result.learned or "").split()))],
        ["from", ", ".join(showing.visible(origin) for origin in result.origins)],
        ["verify", showing.visible(result.verify or "")],
        [
            "made",
            f"{one.created_at}, {tokens} tokens" + (f", approved by {one.approved_by}" if one.approved_by else ""),
        ],
        ["tree", one.tree],
    ]
    click.echo(showing.rows([row for row in rows if row[1]]))
    for layer in result.evidence:
        word = "passed" if layer.passed else "FAILED"
        line = f"{layer.name} {layer.title}: {word} in {layer.seconds:.1f} s. {layer.reason}"
        click.echo(showing.visible(line.rstrip()))
    if result.diff:
        showing.console().print(showing.diff(result.diff.splitlines()))
    return 0


async def activate(client: Client, window: SwapWindow, number: int, *, as_json: bool) -> int:
    """Have a generation serve, and wait until it does or is refused."""
    asked = await client.ask("selfloop/generation/activate", GenerationRef(number=number), RestartResult)
    try:
        async with asyncio.timeout(_SWAP_SECONDS):
            while True:
                state = await window.states.get()
                if state.restart_id == asked.restart_id and state.state in _ENDS:
                    break
    except TimeoutError:
        raise RequestFailed(
            f"Whether generation {number} serves is not known after {_SWAP_SECONDS:.0f} s; look at "
            "`selfloop generation list`."
        ) from None
    if as_json:
        click.echo(encoder.encode(state))
    elif state.state in ("active", "settled"):
        click.echo(f"Generation {number} serves now.")
    else:
        why = f": {showing.visible(state.reason)}" if state.reason else "."
        click.echo(f"Generation {number} does not serve ({state.state}){why}", err=True)
    return 0 if state.state in ("active", "settled") else 1


async def graph(client: Client, output: Path | None) -> int:
    """Write the lineage as SVG to a file, or to stdout."""
    result = await client.ask("selfloop/generation/graph", Empty(), GenerationGraphResult)
    if output is None:
        click.echo(result.svg)
        return 0
    try:
        await asyncio.to_thread(output.write_text, result.svg + "\n", encoding="utf-8")
    except OSError as error:
        raise RequestFailed(f"{output} could not be written ({error.strerror}); nothing was kept of it.") from error
    click.echo(f"Written to {output}.")
    return 0
