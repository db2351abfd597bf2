"""`selfloop status`, `model …`, `rule …` and `trust`: what serves, on which model, and what the user has allowed."""

from __future__ import annotations

import json
from pathlib import Path

import click

from selfloop.cli import showing
from selfloop.cli.client import Client
from selfloop.config import Folders
from selfloop.errors import RequestFailed
from selfloop.lsp.protocol import (
    Empty,
    ModelListParams,
    ModelListResult,
    ModelSelectParams,
    ModelTestResult,
    RuleListResult,
    RuleRemoveParams,
    StatusResult,
)
from selfloop.updates import UsageInfo, encoder


async def status(client: Client, *, as_json: bool) -> int:
    """Print what serves the folder, and what waits."""
    result = await client.ask("selfloop/status", Empty(), StatusResult)
    if as_json:
        click.echo(encoder.encode(result))
        return 0
    table = [
        ["version", f"{result.version}, generation {result.generation}"],
        ["folder", ", ".join(map(showing.name_of, result.folders)) or "none could be opened"],
        ["trusted", "yes" if result.trusted else "no; `selfloop trust` lets Selfloop run commands and a model here"],
        ["model", showing.visible(result.model or "none is set; see `selfloop doctor`")],
        ["isolation", f"{result.isolation}: {showing.visible(result.isolation_detail)}"],
        ["sessions", str(result.sessions)],
        ["open gates", str(result.gates_pending)],
        ["spent", spend(result.spend)],
    ]
    click.echo(showing.rows(table))
    return 0


def spend(usage: UsageInfo) -> str:
    """Return what was used as a person says it."""
    money = "" if usage.cost_usd is None else f", ${usage.cost_usd:.4f}"
    return f"{usage.input_tokens:,} tokens in ({usage.cached_tokens:,} cached), {usage.output_tokens:,} out{money}"


async def list_models(client: Client, *, as_json: bool) -> int:
    """Print the models that the endpoint offers; the one in use is marked."""
    result = await client.ask("selfloop/model/list", ModelListParams(), ModelListResult)
    if as_json:
        click.echo(encoder.encode(result))
        return 0
    table = [
        [
            "*" if model.id == result.current else " ",
            showing.visible(model.id),
            showing.visible(model.origin),
            {True: "tools", False: "no tools", None: ""}[model.tools],
            f"{model.context_tokens:,} tokens" if model.context_tokens else "",
        ]
        for model in result.models
    ]
    click.echo(showing.rows(table) if table else f"No model is listed; in use: {result.current or 'none'}.")
    return 0


async def select_model(client: Client, model: str, base_url: str | None, *, as_json: bool) -> int:
    """Use a model from now on, and say so when something else still decides."""
    answer = await client.ask("selfloop/model/select", ModelSelectParams(model=model, base_url=base_url), Empty)
    if as_json:
        click.echo(encoder.encode(answer))
    else:
        click.echo(f"From now on Selfloop uses {showing.visible(model)}, unless the environment's MODEL_NAME is set.")
    return 0


async def test_model(client: Client, *, as_json: bool) -> int:
    """Make one tiny call; the exit code is 1 when it fails."""
    result = await client.ask("selfloop/model/test", Empty(), ModelTestResult)
    if as_json:
        click.echo(encoder.encode(result))
    else:
        click.echo(f"{showing.visible(showing.said(result.message))} ({result.latency_ms} ms)")
    return 0 if result.ok else 1


async def list_rules(client: Client, *, as_json: bool) -> int:
    """Print the commands that are always allowed."""
    result = await client.ask("selfloop/rule/list", Empty(), RuleListResult)
    if as_json:
        click.echo(encoder.encode(result))
    elif result.rules:
        table = [[rule.rule_id, f"used {rule.uses} times", showing.visible(rule.rule)] for rule in result.rules]
        click.echo(showing.rows(table))
    else:
        click.echo("No command is always allowed; answering a gate with `always` adds one.")
    return 0


async def remove_rule(client: Client, rule_id: str, *, as_json: bool) -> int:
    """Forget a rule."""
    answer = await client.ask("selfloop/rule/remove", RuleRemoveParams(rule_id=rule_id), Empty)
    click.echo(encoder.encode(answer) if as_json else "The rule is forgotten; its command asks again.")
    return 0


def trust(folder: Path, *, remove: bool, listing: bool, as_json: bool) -> None:
    """Change or print the list of folders that the user trusts. It needs no server."""
    from selfloop.storage.trust import TrustList

    trusted = TrustList(Folders.of_user().data)
    name = showing.visible(str(folder))
    if remove and not trusted.remove(folder):
        raise RequestFailed(f"{name} was not on the list, so nothing was changed; `selfloop trust --list` shows it.")
    if not remove and not listing:
        trusted.add(folder)
    if as_json:
        click.echo(json.dumps({"trusted": [str(path) for path in trusted.list()]}))
    elif listing:
        click.echo("\n".join(showing.visible(str(path)) for path in trusted.list()) or "No folder is trusted yet.")
    elif remove:
        still = " It still is, as part of a trusted folder." if trusted.is_trusted(folder) else ""
        click.echo(f"{name} is no longer trusted by itself.{still}")
    else:
        click.echo(f"{name} is trusted: Selfloop may run its model, git and fenced commands there.")


def is_trusted(folder: Path) -> bool:
    """Tell whether the user trusts a folder."""
    from selfloop.storage.trust import TrustList

    return TrustList(Folders.of_user().data).is_trusted(folder)
