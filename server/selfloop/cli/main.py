"""The commands of `selfloop`: what each is called and takes. What it does stands in the module that it imports.

Invariant: nothing but click is imported before a command runs, so `selfloop --help` is quick. The commands of loops are
in `loop_commands.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import selfloop
from selfloop.cli import generation_commands, loop_commands
from selfloop.errors import SelfloopError

if TYPE_CHECKING:
    from selfloop.cli.client import Client


class _Folder(click.ParamType):
    """A path made absolute as it was typed: no link is followed."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return Path(os.path.abspath(os.path.expanduser(value)))  # noqa: PTH100, PTH111 - Path keeps `..`


_FOLDER = _Folder()

folder_option = click.option("--folder", "-C", type=_FOLDER, default=".", help="The workspace; default: this folder.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


class _Terminal(click.Group):
    """A group whose commands end with one plain sentence when something cannot be done."""

    def main(self, *args: Any, **more: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # A closed stream is None.
                stream.reconfigure(errors="backslashreplace")
        return super().main(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SelfloopError as error:
            from selfloop.cli.showing import said, visible

            raise click.ClickException(visible(said(error.message))) from error
        except KeyboardInterrupt:
            ctx.exit(130)


def _serve(folder: Path, work: Callable[[Client], Awaitable[int]]) -> NoReturn:
    """Do something as a client of the folder's server, and exit with its code."""
    from selfloop.cli.client import Window

    loop_commands.serve_with(folder, Window(), work)


def _look(folder: Path, work: Callable[[Client], Awaitable[int]]) -> NoReturn:
    """Do something that needs nothing at work in the folder: what was cut off there stays as it is."""
    from selfloop.cli.client import Visitor

    loop_commands.serve_with(folder, Visitor(), work)


@click.group(cls=_Terminal, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(selfloop.__version__, message="selfloop %(version)s")
def main() -> None:
    """A coding agent whose every change waits for your approval.

    It lives in your editor as a language server (`selfloop serve`, on stdio). These commands are for the terminal: each
    is a client of the same server, and shares it with the editors that have the folder open.
    """


@main.command()
@click.argument("folder", type=_FOLDER, required=False)
@click.option("--folder", "-C", "option", type=_FOLDER, default=".", help="The same as FOLDER.")
@click.option("--session", "session_id", metavar="ID", help="Go on with this session.")
def chat(folder: Path | None, option: Path, session_id: str | None) -> None:
    """Talk to the agent about a folder, and decide on its changes hunk by hunk."""
    from selfloop.cli.chat import run

    sys.exit(run(folder or option, session_id))


@main.command()
@click.option("--keep", is_flag=True, help="Keep the sample folder, to look around in it afterwards.")
@click.option("--evolution/--no-evolution", default=True, help="Show an evolution at its end; it takes a minute.")
def demo(keep: bool, evolution: bool) -> None:
    """See the whole way once, with a built-in model: nothing to set up, nothing of yours is touched."""
    from selfloop.cli.demo import run

    sys.exit(run(keep=keep, evolution=evolution))


@main.command()
@click.option("--self", "own", metavar="FOLDER", help="Serve this checkout in the place of the installed package.")
def serve(own: str | None) -> None:
    """Be the language server, on standard input and output; an editor starts it."""
    # `__main__.py` goes the short way; only its help is ever asked for here.
    raise click.UsageError("Start it as `selfloop serve`; nothing was started.")


@main.command()
@folder_option
@json_option
def doctor(folder: Path, as_json: bool) -> None:
    """Check what Selfloop needs, and say how to mend what is missing."""
    from selfloop.cli.doctor import run

    sys.exit(run(folder, as_json=as_json))


@main.command()
@folder_option
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Say what serves the folder, on which model, how well fenced, and what waits."""
    from selfloop.cli import system

    _look(folder, lambda client: system.status(client, as_json=as_json))


@main.command()
@click.argument("folder", type=_FOLDER, required=False)
@click.option("--folder", "-C", "option", type=_FOLDER, default=".", help="The same as FOLDER.")
@click.option("--remove", is_flag=True, help="Trust the folder no longer.")
@click.option("--list", "listing", is_flag=True, help="List the trusted folders.")
@json_option
def trust(folder: Path | None, option: Path, remove: bool, listing: bool, as_json: bool) -> None:
    """Trust a folder (and what is in it): let Selfloop run a model, git and fenced commands there."""
    from selfloop.cli import system

    system.trust(folder or option, remove=remove, listing=listing, as_json=as_json)


# Gates


@main.group()
def gate() -> None:
    """See and decide what waits for you."""


@gate.command("list")
@click.option("--all", "every", is_flag=True, help="The decided ones too.")
@folder_option
@json_option
def gate_list(every: bool, folder: Path, as_json: bool) -> None:
    """List the open gates."""
    from selfloop.cli import gates

    _look(folder, lambda client: gates.list_gates(client, None if every else "open", as_json=as_json))


@gate.command("show")
@click.argument("gate_id", metavar="[GATE]", required=False)
@folder_option
@json_option
def gate_show(gate_id: str | None, folder: Path, as_json: bool) -> None:
    """Show a gate with every change; without GATE, the one that is open."""
    from selfloop.cli import gates

    _look(folder, lambda client: gates.show(client, gate_id, as_json=as_json))


def _decision(command: Callable[..., None]) -> Callable[..., None]:
    """Add what approving and rejecting take."""
    for decorate in reversed(
        (
            click.argument("gate_id", metavar="[GATE]", required=False),
            click.option("--hunk", "hunk_ids", metavar="ID", multiple=True, help="Only this hunk; may be repeated."),
            click.option("--digest", metavar="SHA256", help="Only if the gate is still what had this digest."),
            click.option("--comment", metavar="TEXT", help="What the agent is told about it."),
            click.option("--yes", "-y", is_flag=True, help="Do not ask first."),
            folder_option,
            json_option,
        )
    ):
        command = decorate(command)
    return command


@gate.command("approve")
@_decision
@click.option("--always", is_flag=True, help="Of a command: allow exactly this one from now on.")
def gate_approve(always: bool, **choice: Any) -> None:
    """Approve a gate, or some of its hunks. At a terminal it is shown first."""
    _decide("allow_always" if always else "allow_once", **choice)


@gate.command("reject")
@_decision
def gate_reject(**choice: Any) -> None:
    """Reject a gate, or some of its hunks."""
    _decide("reject_once", **choice)


def _decide(kind: Any, *, gate_id: str | None, yes: bool, folder: Path, **choice: Any) -> NoReturn:
    from selfloop.cli import gates

    ask = sys.stdin is not None and sys.stdin.isatty() and not yes and choice["digest"] is None
    window = gates.DecisionWindow()
    loop_commands.serve_with(
        folder, window, lambda client: gates.decide(client, window, gate_id, kind, ask=ask, **choice)
    )


@gate.command("undo")
@click.argument("gate_id", metavar="GATE")
@folder_option
@json_option
def gate_undo(gate_id: str, folder: Path, as_json: bool) -> None:
    """Take back what a gate applied, over all its files."""
    from selfloop.cli import gates

    _serve(folder, lambda client: gates.undo(client, gate_id, as_json=as_json))


# Sessions


@main.group()
def session() -> None:
    """See which conversations there are."""


@session.command("list")
@folder_option
@json_option
def session_list(folder: Path, as_json: bool) -> None:
    """List the sessions, newest first."""
    from selfloop.cli import sessions

    _look(folder, lambda client: sessions.list_sessions(client, as_json=as_json))


@session.command("show")
@click.argument("session_id", metavar="[SESSION]", required=False)
@folder_option
@json_option
def session_show(session_id: str | None, folder: Path, as_json: bool) -> None:
    """Show what was said and done; without SESSION, in the newest."""
    from selfloop.cli import sessions

    _look(folder, lambda client: sessions.show(client, session_id, as_json=as_json))


# Models and rules


@main.group()
def model() -> None:
    """See, choose and test the model."""


@model.command("list")
@folder_option
@json_option
def model_list(folder: Path, as_json: bool) -> None:
    """List the models that the endpoint offers."""
    from selfloop.cli import system

    _look(folder, lambda client: system.list_models(client, as_json=as_json))


@model.command("select")
@click.argument("name", metavar="MODEL")
@click.option("--base-url", metavar="URL", help="An OpenAI-compatible endpoint; default: the one in use.")
@folder_option
@json_option
def model_select(name: str, base_url: str | None, folder: Path, as_json: bool) -> None:
    """Use this model from now on, in every folder."""
    from selfloop.cli import system

    _look(folder, lambda client: system.select_model(client, name, base_url, as_json=as_json))


@model.command("test")
@folder_option
@json_option
def model_test(folder: Path, as_json: bool) -> None:
    """Make one tiny call to the model."""
    from selfloop.cli import system

    _look(folder, lambda client: system.test_model(client, as_json=as_json))


@main.group()
def rule() -> None:
    """See and forget the commands that you always allow."""


@rule.command("list")
@folder_option
@json_option
def rule_list(folder: Path, as_json: bool) -> None:
    """List the rules."""
    from selfloop.cli import system

    _look(folder, lambda client: system.list_rules(client, as_json=as_json))


@rule.command("remove")
@click.argument("rule_id", metavar="RULE")
@folder_option
@json_option
def rule_remove(rule_id: str, folder: Path, as_json: bool) -> None:
    """Forget a rule: its command asks again."""
    from selfloop.cli import system

    _look(folder, lambda client: system.remove_rule(client, rule_id, as_json=as_json))


# Loops

loop_commands.register(main, _serve, _look, folder_option, json_option)
generation_commands.register(main, _look, folder_option, json_option)
