"""`selfloop loop …` and `selfloop run …`: which loops there are, what they did, and a round now.

`loop run` ends with a code that a script can decide by: 0 reported or proceeded, 3 escalated, 4 budget-exhausted,
5 failed; 1 as everywhere when it could not be asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import click

from selfloop.cli import showing
from selfloop.cli.client import Client, Visitor, Window
from selfloop.errors import RequestFailed, SelfloopError, Unknown
from selfloop.lsp.loop_messages import (
    LoopConfigureParams,
    LoopConfigureResult,
    LoopListParams,
    LoopListResult,
    RunListParams,
    RunListResult,
    RunningInfo,
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
_CANCEL_SECONDS = 60


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


class RoundWindow(RunWindow):
    """A terminal that asks for one round, or ends one: until it does, nothing is taken up that was cut off."""

    options: ClassVar[Mapping[str, Any]] = Visitor.options


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
        click.echo(f"\n{showing.report(loop.last_run.render())}", nl=False)
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
    """Run one round now, wait for its end, and return the code of its outcome; Ctrl-C cancels it.

    A round of the loop that was cut off is gone on with instead, and waited for.
    """
    left = [one for one in await _unfinished(client) if one.loop_id == loop_id]
    status = await client.ask("selfloop/status", Empty(), StatusResult) if left else None
    cut_off = status is not None and status.trusted and not status.runs
    if cut_off:
        click.echo(f"A round of {loop_id} was cut off; it goes on now.", err=True)
    try:
        started = await client.ask("selfloop/run/start", RunStartParams(loop_id=loop_id), RunRef)
    except RequestFailed as error:
        if not left or error.reason != RequestFailed.reason:
            raise
        started = RunRef(run_id=left[0].run_id)
        if not cut_off:
            raise RequestFailed(
                f"A round of {loop_id} is under way, so no second one was started; wait for it, or end it with "
                f"`selfloop run cancel {started.run_id}`."
            ) from error
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
        click.echo(showing.report(result.rendered), nl=False)
        checker = result.run.checker
        if checker is not None and checker.text:
            click.echo(f"verdict: {showing.visible(checker.text)}")
        if result.gate_id is not None:
            click.echo(f"It waits for you: `selfloop gate show {result.gate_id}`.")
    return EXIT_CODES[result.run.outcome.type]


async def _ended(client: Client, window: RunWindow, run_id: str) -> RunReadResult:
    while (result := await _seen(client, window, run_id, _LOOK_SECONDS)).run is None:
        pass
    return result


async def _seen(client: Client, window: RunWindow, run_id: str, seconds: float) -> RunReadResult:
    """Return a round as it is when its end was heard of, or after so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await window.ended.get()).run_id != run_id:
                pass
    return await client.ask("selfloop/run/read", RunRef(run_id=run_id), RunReadResult)


async def _unfinished(client: Client) -> list[RunningInfo]:
    """Return the folder's rounds that have not ended, whether or not anybody is at work on them."""
    params = RunListParams(limit=1, workspace_folder=client.folder)
    return (await client.ask("selfloop/run/list", params, RunListResult)).running


async def _any_at_work(client: Client) -> bool:
    """Tell whether the server is at work on any round: if not, those that have not ended were cut off."""
    return (await client.ask("selfloop/status", Empty(), StatusResult)).runs > 0


async def cancel_run(client: Client, window: RunWindow, run_id: str | None, *, as_json: bool) -> int:
    """End a round, also one that was cut off, and print its report; without an id, the one that is under way."""
    if run_id is None:
        rows = await _unfinished(client)
        if not rows:
            raise RequestFailed("No round is under way here, so nothing was cancelled.")
        if len(rows) > 1:
            ids = ", ".join(f"{one.run_id} of {one.loop_id}" for one in rows)
            raise RequestFailed(
                f"{len(rows)} rounds are under way ({ids}), so nothing was cancelled; name one of them."
            )
        run_id = rows[0].run_id
    ref = RunRef(run_id=run_id)
    result = await client.ask("selfloop/run/read", ref, RunReadResult)
    if result.run is not None:
        raise RequestFailed(
            f"The round {run_id} has ended ({result.run.outcome.type}), so nothing was cancelled; "
            f"`selfloop run show {run_id}` shows it."
        )
    for _ in range(_CANCEL_SECONDS):
        # Asked again, because one that waits for another of its loop can only be ended once it is begun.
        await client.ask("selfloop/run/cancel", ref, Empty)
        result = await _seen(client, window, run_id, 1.0)
        if result.run is not None:
            click.echo(encoder.encode(result) if as_json else showing.report(result.rendered), nl=as_json)
            return 0
    raise RequestFailed(
        f"The round {run_id} has not ended after {_CANCEL_SECONDS} s; what it carries out comes to its end first. "
        f"Look at it with `selfloop run show {run_id}`."
    )


async def watch(client: Client, window: RunWindow, *, every: bool, as_json: bool) -> int:
    """Have the loops that are on run until Ctrl-C, and print each report that somebody should see."""
    status = await client.ask("selfloop/status", Empty(), StatusResult)
    if not status.trusted:
        raise RequestFailed("This folder is not trusted, so no loop runs; run `selfloop trust` first.")
    loops = (await client.ask("selfloop/loop/list", LoopListParams(), LoopListResult)).loops
    on = [loop for loop in loops if loop.enabled]
    names = ", ".join(f"{loop.loop_id} ({loop.cadence})" for loop in on)
    many = "1 loop is on" if len(on) == 1 else f"{len(on)} loops are on"
    click.echo(f"{many}: {names}." if on else "No loop is on; `selfloop loop enable NAME` …", err=True)
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
                click.echo(encoder.encode(report) if as_json else showing.report(report.render()))
    finally:
        gone.cancel()
    raise RequestFailed("The server has ended, so no loop runs any more; start `selfloop loop watch` again.")


async def list_runs(client: Client, loop_id: str | None, limit: int, *, as_json: bool) -> int:
    """Print rounds, newest first; those under way before them."""
    result = await client.ask("selfloop/run/list", RunListParams(loop_id=loop_id, limit=limit), RunListResult)
    if as_json:
        click.echo(encoder.encode(result))
        return 0
    word = "running" if result.running and await _any_at_work(client) else "cut off"
    rows = [[one.run_id, one.loop_id, f"{word}: {one.phase}", one.started_at] for one in result.running]
    rows += [[one.run_id, one.loop_id, one.outcome.type, one.started_at] for one in result.runs]
    click.echo(showing.rows(rows) if rows else "No round has run here yet; `selfloop loop run NAME` starts one.")
    return 0


async def show_run(client: Client, run_id: str | None, *, as_json: bool) -> int:
    """Print a round's report and what proves it; without an id, of the newest."""
    if run_id is None:
        params = RunListParams(limit=1, workspace_folder=client.folder)
        known = await client.ask("selfloop/run/list", params, RunListResult)
        if not (known.runs or known.running):
            raise RequestFailed("No round has run here yet, so nothing was shown; `selfloop loop run NAME` starts one.")
        run_id = max([*known.runs, *known.running], key=lambda one: one.started_at).run_id
    result = await client.ask("selfloop/run/read", RunRef(run_id=run_id), RunReadResult)
    if as_json:
        click.echo(encoder.encode(result))
        return 0
    if result.run is None and await _any_at_work(client):
        click.echo(f"The round {run_id} is under way: {result.phase}.")
    elif result.run is None:
        click.echo(
            f"The round {run_id} was cut off: {result.phase}. It goes on when an editor or `selfloop loop watch` has "
            "the folder open, or by `selfloop loop run` of its loop."
        )
    click.echo(showing.report(result.rendered), nl=False)
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
