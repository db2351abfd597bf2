"""`selfloop loop …` and `selfloop run …`: what the commands are called and take; `loops.py` does them."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from selfloop.cli.client import Client, Window

Serve = Callable[[Path, Callable[["Client"], Awaitable[int]]], NoReturn]


def register(
    main: click.Group,
    serve: Serve,
    look: Serve,
    folder_option: Callable[..., Callable[..., None]],
    json_option: Callable[..., Callable[..., None]],
) -> None:
    """Add the commands to the terminal's.

    Args:
        main: the terminal's commands.
        serve: does something as a client of a folder's server, and exits with its code.
        look: does the same, but changes nothing, so that nothing is taken up for it.
        folder_option: which folder.
        json_option: whether to print JSON.
    """

    @main.group()
    def loop() -> None:
        """Recurring agent work: see it, turn it on, run it now."""

    @loop.command("list")
    @folder_option
    @json_option
    def loop_list(folder: Path, as_json: bool) -> None:
        """List the loops."""
        from selfloop.cli import loops

        look(folder, lambda client: loops.list_loops(client, as_json=as_json))

    @loop.command("show")
    @click.argument("loop_id", metavar="LOOP")
    @folder_option
    @json_option
    def loop_show(loop_id: str, folder: Path, as_json: bool) -> None:
        """Show a loop: what it is for, what it may do, and its last round."""
        from selfloop.cli import loops

        look(folder, lambda client: loops.show_loop(client, loop_id, as_json=as_json))

    @loop.command("run")
    @click.argument("loop_id", metavar="LOOP")
    @folder_option
    @json_option
    def loop_run(loop_id: str, folder: Path, as_json: bool) -> None:
        """Run one round now and wait for it, whether the loop is on or off.

        Exits with 0 if it reported or proceeded, 3 if it was escalated to you, 4 if its budget ended, 5 if it failed.
        """
        from selfloop.cli import loops

        window = loops.RoundWindow(quiet=as_json)
        serve_with(folder, window, lambda client: loops.run(client, window, loop_id, as_json=as_json))

    @loop.command("watch")
    @click.option("--all", "every", is_flag=True, help="Print the rounds that went ahead cleanly too.")
    @folder_option
    @json_option
    def loop_watch(every: bool, folder: Path, as_json: bool) -> None:
        """Have the loops that are on run until Ctrl-C, without an editor; with --json one report a line."""
        from selfloop.cli import loops

        window = loops.RunWindow(quiet=as_json)
        serve_with(folder, window, lambda client: loops.watch(client, window, every=every, as_json=as_json))

    @loop.command("enable")
    @click.argument("loop_id", metavar="LOOP")
    @click.option("--level", metavar="LEVEL", help="L1, L2 or L3; a higher one waits for your approval.")
    @click.option("--cadence", metavar="CADENCE", help="Such as 'every 30m', 'daily 09:00', 'manual'.")
    @click.option(
        "--allow",
        multiple=True,
        metavar="ACTION",
        help="What it may do by itself at L3: its own action, as `loop show` names it; waits for your approval.",
    )
    @folder_option
    @json_option
    def loop_enable(
        loop_id: str, level: str | None, cadence: str | None, allow: tuple[str, ...], folder: Path, as_json: bool
    ) -> None:
        """Turn a loop on in this folder."""
        from selfloop.cli import loops

        serve(
            folder,
            lambda client: loops.configure(
                client, loop_id, enabled=True, level=level, cadence=cadence, allow=allow, as_json=as_json
            ),
        )

    @loop.command("disable")
    @click.argument("loop_id", metavar="LOOP")
    @folder_option
    @json_option
    def loop_disable(loop_id: str, folder: Path, as_json: bool) -> None:
        """Turn a loop off in this folder: it is never due."""
        from selfloop.cli import loops

        serve(
            folder,
            lambda client: loops.configure(client, loop_id, enabled=False, level=None, cadence=None, as_json=as_json),
        )

    @main.group("run")
    def rounds() -> None:
        """See what the rounds of loops did, or end one."""

    @rounds.command("list")
    @click.option("--loop", "loop_id", metavar="LOOP", help="Only the rounds of this loop.")
    @click.option("--limit", type=click.IntRange(1, 200), default=20, help="How many at most; default: 20.")
    @folder_option
    @json_option
    def run_list(loop_id: str | None, limit: int, folder: Path, as_json: bool) -> None:
        """List the rounds, newest first."""
        from selfloop.cli import loops

        look(folder, lambda client: loops.list_runs(client, loop_id, limit, as_json=as_json))

    @rounds.command("show")
    @click.argument("run_id", metavar="[RUN]", required=False)
    @folder_option
    @json_option
    def run_show(run_id: str | None, folder: Path, as_json: bool) -> None:
        """Show a round's report and what proves it; without RUN, of the newest."""
        from selfloop.cli import loops

        look(folder, lambda client: loops.show_run(client, run_id, as_json=as_json))

    @rounds.command("cancel")
    @click.argument("run_id", metavar="[RUN]", required=False)
    @folder_option
    @json_option
    def run_cancel(run_id: str | None, folder: Path, as_json: bool) -> None:
        """End a round; without RUN, the one that is under way."""
        from selfloop.cli import loops

        window = loops.RoundWindow(quiet=True)
        serve_with(folder, window, lambda client: loops.cancel_run(client, window, run_id, as_json=as_json))


def serve_with(folder: Path, window: Window, work: Callable[[Client], Awaitable[int]]) -> NoReturn:
    """Do something as a client with a window of its own, and exit with its code."""
    import asyncio

    from selfloop.cli.client import connect

    async def run() -> int:
        async with connect(folder, window) as client:
            return await work(client)

    sys.exit(asyncio.run(run()))
