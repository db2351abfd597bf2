"""`selfloop evolve` and `selfloop generation …`: what they are called and take; `generations.py` does them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from selfloop.cli.loop_commands import Serve, serve_with


def register(
    main: click.Group,
    look: Serve,
    folder_option: Callable[..., Callable[..., None]],
    json_option: Callable[..., Callable[..., None]],
) -> None:
    """Add the commands to the terminal's; the arguments are those of `loop_commands.register`."""

    @main.command("evolve")
    @folder_option
    @json_option
    def evolve_now(folder: Path, as_json: bool) -> None:
        """Learn from this folder's sessions and change Selfloop itself, as far as its judge and you let it.

        What passes waits for your approval (exit code 3); nothing to learn is 0, a spent budget 4, a failure 5.
        """
        from selfloop.cli import generations, loops

        window = loops.RoundWindow(quiet=as_json)
        serve_with(folder, window, lambda client: generations.evolve(client, window, as_json=as_json))

    @main.group()
    def generation() -> None:
        """See the selves that Selfloop had, and go back to one."""

    @generation.command("list")
    @folder_option
    @json_option
    def generation_list(folder: Path, as_json: bool) -> None:
        """List the generations."""
        from selfloop.cli import generations

        look(folder, lambda client: generations.list_all(client, as_json=as_json))

    @generation.command("show")
    @click.argument("number", type=click.IntRange(min=0))
    @folder_option
    @json_option
    def generation_show(number: int, folder: Path, as_json: bool) -> None:
        """Show a generation: what it changed, what proved it, what it learned from."""
        from selfloop.cli import generations

        look(folder, lambda client: generations.show(client, number, as_json=as_json))

    @generation.command("activate")
    @click.argument("number", type=click.IntRange(min=0))
    @folder_option
    @json_option
    def generation_activate(number: int, folder: Path, as_json: bool) -> None:
        """Have a verified generation serve, such as the one before; 0 is the installed package."""
        from selfloop.cli import generations

        window = generations.SwapWindow()
        serve_with(folder, window, lambda client: generations.activate(client, window, number, as_json=as_json))

    @generation.command("graph")
    @click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="The file; default: stdout.")
    @folder_option
    def generation_graph(output: Path | None, folder: Path) -> None:
        """Draw the lineage as SVG."""
        from selfloop.cli import generations

        look(folder, lambda client: generations.graph(client, output))
