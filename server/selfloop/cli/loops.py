"""`selfloop loop …` and `selfloop run …`: which loops there are, what they did, and a round now.

`loop run` ends with a code that a script can decide by: 0 reported or proceeded, 3 escalated, 4 budget-exhausted,
5 failed; 1 as everywhere when it could not be asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import click

from selfloop.cli import showing
from selfloop.cli.client import Client, Window
from selfloop.errors import RequestFailed, SelfloopError, Unknown
from selfloop.lsp.loop_messages import (
    LoopConfigureParams,
    LoopConfigureResult,
    LoopListParams,
    LoopListResult,
    RunListParams,
    RunListResult,
    RunReadResult,
    RunRef,
    RunStartParams,
)
from selfloop.lsp.protocol import Empty, StatusResult
from selfloop.reports import LoopInfo, OutcomeType, RoundReport
from selfloop.updates import RunUpdate, UpdateEnvelope, encoder

EXIT_CODES: dict[OutcomeType, int] = {"reported": 0, "proceeded": 0, "escalated": 3, "budget-exhausted": 4, "failed": 5}
EVOLUTION = "self-evolution"
"""The loop whose rounds change Selfloop itself."""
_LOOK_SECONDS = 5.0
"""So often a round is asked about whose end was not heard of."""


class RunWindow(Window):
    """A terminal that listens to rounds."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self.ended: asyncio.Queue[RoundReport] = asyncio.Queue()
        self._seen: set[str] = set()

    def update(self, envelope: UpdateEnvelope) -> None:
        """Note the end of a round, and say where the others are."""
        super().update(envelope)
        update = envelope.update
        if not isinstance(update, RunUpdate):
            return
        if update.report is None:
            if not self._quiet:
                click.echo(f"{update.loop_id}: {update.phase} …", err=True)
        elif update.run_id not in self._seen:  # A receipt that comes later tells the report again.
            self._seen.add(update.run_id)
            self.ended.put_nowait(update.report)


async def list_loops(client: Client, *, as_json: bool) -> int:
    """Print the loops, by name."""
    result = await client.ask("selfloop/loop/list", LoopListParams(), LoopListResult)
    if as_json:
        click.echo(encoder.encode(result))
        return 0
    click.echo(showing.rows([_row(loop) for loop in result.loops]))
    for loop in result.loops:
        for notice in loop.notices:
            click.echo(f"note: {showing.visible(notice)}", err=True)
    return 0


def _row(loop: LoopInfo) -> list[str]:
    last = loop.last_run.outcome.type if loop.last_run is not None else "never ran"
    due = f"next {loop.next_at}" if loop.next_at else ""
    return [loop.loop_id, "on" if loop.enabled else "off", loop.level, loop.cadence, loop.action, last, due]


async def show_loop(client: Client, loop_id: str, *, as_json: bool) -> int:
    """Print one loop."""
    loop = await _loop(client, loop_id)
    if as_json:
        click.echo(encoder.encode(loop))
        return 0
    budget = {name: value for name, value in _limits(loop).items() if value is not None}
    rows = [
        ["loop", loop.loop_id],
        ["intent", showing.visible(loop.intent)],
        ["state", "on" if loop.enabled else f"off; `selfloop loop enable {loop.loop_id}` turns it on"],
        ["level", f"{loop.level}, at most {loop.max_level}"],
        ["cadence", loop.cadence + (f", next {loop.next_at}" if loop.next_at else "")],
        ["action", loop.action + (f"; by itself: {', '.join(loop.allow)}" if loop.allow else "")],
        ["budget", ", ".join(f"{name} {value:,}" for name, value in budget.items()) or "none"],
        ["file", showing.name_of(loop.uri) if loop.uri else ""],
    ]
    click.echo(showing.rows(rows))
    for notice in loop.notices:
        click.echo(f"note: {showing.visible(notice)}")
    if loop.last_run is not None:
        click.echo(f"\n{showing.visible(loop.last_run.render())}", nl=False)
    return 0


def _limits(loop: LoopInfo) -> dict[str, float | None]:
    names = (
        "max_input_tokens",
        "max_output_tokens",
        "max_total_tokens",
        "max_cost_usd",
        "max_seconds",
        "max_iterations",
    )
    found = {name.removeprefix("max_").replace("_", " "): getattr(loop.budget, name) for name in names}
    day = loop.budget.day
    if day is not None:
        found |= {f"{name.removeprefix('max_').replace('_', ' ')} a day": getattr(day, name) for name in names}
    return found


async def configure(
    client: Client,
    loop_id: str,
    *,
    enabled: bool,
    level: str | None,
    cadence: str | None,
    allow: Sequence[str] = (),
    as_json: bool,
) -> int:
    """Turn a loop on or off, and set its level, its cadence and what it may do by itself."""
    result = await client.ask(
        "selfloop/loop/configure",
        LoopConfigureParams(
            loop_id=loop_id, enabled=enabled, level=level, cadence=cadence, allow=list(allow) if allow else None
        ),
        LoopConfigureResult,
    )
    if as_json:
        click.echo(encoder.encode(result))
        return 0
    loop = result.loop
    due = f", next {loop.next_at}" if loop.next_at else ""
    click.echo(f"{loop.loop_id} is {'on' if loop.enabled else 'off'}: {loop.level}, {loop.cadence}{due}.")
    if loop.enabled:
        click.echo("It runs while an editor or `selfloop loop watch` has the folder open.")
    if result.gate_id is not None:
        click.echo(f"More authority waits for you: `selfloop gate approve {result.gate_id}`.")
    return 0


async def run(client: Client, window: RunWindow, loop_id: str, *, as_json: bool) -> int:
    """Run one round now, wait for its end, and return the code of its outcome; Ctrl-C cancels it."""
    started = await client.ask("selfloop/run/start", RunStartParams(loop_id=loop_id), RunRef)
    try:
        result = await _ended(client, window, started.run_id)
    except asyncio.CancelledError:
        with contextlib.suppress(SelfloopError):
            await client.ask("selfloop/run/cancel", started, Empty)
        raise
    assert result.run is not None  # noqa: S101 - that is what was waited for
    if as_json:
        click.echo(encoder.encode(result))
    else:
        click.echo(showing.visible(result.rendered), nl=False)
        checker = result.run.checker
        if checker is not None and checker.text:
            click.echo(f"verdict: {showing.visible(checker.text)}")
        if result.gate_id is not None:
            click.echo(f"It waits for you: `selfloop gate show {result.gate_id}`.")
    return EXIT_CODES[result.run.outcome.type]


async def _ended(client: Client, window: RunWindow, run_id: str) -> RunReadResult:
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                while (await window.ended.get()).run_id != run_id:
                    pass
        result = await client.ask("selfloop/run/read", RunRef(run_id=run_id), RunReadResult)
        if result.run is not None:
            return result


async def watch(client: Client, window: RunWindow, *, every: bool, as_json: bool) -> int:
    """Have the loops that are on run until Ctrl-C, and print each report that somebody should see."""
    status = await client.ask("selfloop/status", Empty(), StatusResult)
    if not status.trusted:
        raise RequestFailed("This folder is not trusted, so no loop runs; run `selfloop trust` first.")
    loops = (await client.ask("selfloop/loop/list", LoopListParams(), LoopListResult)).loops
    on = [loop for loop in loops if loop.enabled]
    names = ", ".join(f"{loop.loop_id} ({loop.cadence})" for loop in on)
    click.echo(f"{len(on)} loops are on: {names}." if on else "No loop is on; `selfloop loop enable NAME` …", err=True)
    gone = asyncio.ensure_future(client.ended())
    try:
        while not gone.done():
            ended = asyncio.ensure_future(window.ended.get())
            await asyncio.wait({gone, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                ended.cancel()
                break
            report = ended.result()
            if every or report.should_deliver():
                click.echo(encoder.encode(report) if as_json else showing.visible(report.render()))
    finally:
        gone.cancel()
    raise RequestFailed("The server has ended, so no loop runs any more; start `selfloop loop watch` again.")


async def list_runs(client: Client, loop_id: str | None, limit: int, *, as_json: bool) -> int:
    """Print rounds, newest first; those under way before them."""
    result = await client.ask("selfloop/run/list", RunListParams(loop_id=loop_id, limit=limit), RunListResult)
    if as_json:
        click.echo(encoder.encode(result))
        return 0
    rows = [[one.run_id, one.loop_id, f"running: {one.phase}", one.started_at] for one in result.running]
    rows += [[one.run_id, one.loop_id, one.outcome.type, one.started_at] for one in result.runs]
    click.echo(showing.rows(rows) if rows else "No round has run here yet; `selfloop loop run NAME` starts one.")
    return 0


async def show_run(client: Client, run_id: str | None, *, as_json: bool) -> int:
    """Print a round's report and what proves it; without an id, of the newest."""
    if run_id is None:
        runs = (await client.ask("selfloop/run/list", RunListParams(limit=1), RunListResult)).runs
        if not runs:
            raise RequestFailed("No round has run here yet, so nothing was shown; `selfloop loop run NAME` starts one.")
        run_id = runs[0].run_id
    result = await client.ask("selfloop/run/read", RunRef(run_id=run_id), RunReadResult)
    if as_json:
        click.echo(encoder.encode(result))
        return 0
    click.echo(showing.visible(result.rendered) or f"The round is under way: {result.phase}.\n", nl=False)
    if result.run is not None:
        if result.run.checker is not None and result.run.checker.text:
            click.echo(f"verdict: {showing.visible(result.run.checker.text)}")
        for receipt in result.run.receipts:
            click.echo(f"receipt: {showing.visible(receipt.summary)}")
    for item in result.evidence:
        counts = "" if item.counts else "  (does not count)"
        click.echo(f"evidence: {showing.visible(item.command)}  exit {item.exit_code}{counts}")
    if result.gate_id is not None:
        click.echo(f"gate: {result.gate_id}")
    return 0


async def _loop(client: Client, loop_id: str) -> LoopInfo:
    loops = (await client.ask("selfloop/loop/list", LoopListParams(), LoopListResult)).loops
    found = next((loop for loop in loops if loop.loop_id == loop_id), None)
    if found is None:
        raise Unknown("Loop", loop_id)
    return found
