"""What concerns the whole server: status, models, remembered rules, restart."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

from attrs import evolve

import selfloop
from selfloop.config import origin_of, save_model_choice
from selfloop.errors import InvalidInput, RequestFailed
from selfloop.lsp.protocol import (
    DiscoveredEndpoint,
    Empty,
    ModelDiscoverResult,
    ModelInfo,
    ModelListParams,
    ModelListResult,
    ModelSelectParams,
    ModelSetKeyParams,
    ModelTestResult,
    RestartParams,
    RestartResult,
    RuleInfo,
    RuleListResult,
    RuleRemoveParams,
    StatusResult,
)
from selfloop.lsp.server import SelfloopServer
from selfloop.messages import Usage
from selfloop.updates import UsageInfo

if TYPE_CHECKING:
    from selfloop.model.catalogue import ModelEntry


async def status(ls: SelfloopServer, params: Empty) -> StatusResult:
    """Say what serves, on which model, how well fenced, and what waits."""
    first = next(iter(ls.hub.workspaces.values()), None)
    isolation = await first.workshop.isolation() if first is not None and ls.trusted else None
    workspaces = list(ls.hub.workspaces.values())  # Those that are still open now.
    spend = sum((workspace.spend() for workspace in workspaces), Usage())
    return StatusResult(
        version=selfloop.__version__,
        generation=ls.hub.generation,
        model=ls.hub.model_name(),
        isolation=isolation.level if isolation else "none",
        isolation_detail=isolation.detail if isolation else _why_not(first is not None),
        sessions=sum(workspace.sessions.count() for workspace in workspaces),
        runs=sum(len(each.loops_if_read.engine.running()) for each in workspaces if each.loops_if_read is not None),
        gates_pending=sum(len(workspace.gates.list("open")) for workspace in workspaces),
        spend=usage_info(spend),
        trusted=ls.trusted,
        folders=[workspace.root_uri for workspace in workspaces],
    )


def _why_not(served: bool) -> str:
    return "Nothing runs before the workspace is trusted." if served else "No folder is served, so nothing runs."


def usage_info(usage: Usage) -> UsageInfo:
    """Return usage as it goes over the wire."""
    return UsageInfo(
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        cost_usd=usage.cost_usd,
    )


async def list_models(ls: SelfloopServer, params: ModelListParams) -> ModelListResult:
    """List the models that an endpoint offers, and the one in use; without a base URL the endpoint in use."""
    client = ls.hub.workspace_of(ls).workshop.model
    if params.base_url and origin_of(params.base_url) is None:
        raise InvalidInput("The base URL must look like https://host/v1, so no model was listed; mend it.")
    rows = await client.list_models(params.base_url)
    return ModelListResult(
        models=[_model_info(row) for row in rows],
        current=client.name,
        base_url=client.base_url,
    )


def _model_info(row: ModelEntry) -> ModelInfo:
    return ModelInfo(id=row.id, origin=row.origin, tools=row.tools, context_tokens=row.context_tokens)


async def discover_models(ls: SelfloopServer, params: Empty) -> ModelDiscoverResult:
    """Find the model servers that run on this machine without having been set."""
    from selfloop.model.catalogue import discover  # Most editors never ask.

    return ModelDiscoverResult(
        endpoints=[
            DiscoveredEndpoint(name=one.name, base_url=one.base_url, models=[_model_info(row) for row in one.models])
            for one in await discover(os.environ.get("OLLAMA_HOST"))
        ]
    )


def select_model(ls: SelfloopServer, params: ModelSelectParams) -> Empty:
    """Use another model from the next call on, in every folder; remembered for this user."""
    if not params.model.strip():
        raise InvalidInput("The model's name is empty, so the model was not changed; selfloop/model/list shows names.")
    if params.base_url and origin_of(params.base_url) is None:
        raise InvalidInput("The base URL must look like https://host/v1, so the model was not changed; mend it.")
    settings, model = ls.hub.settings(), params.model.strip()
    # Absent: at the same endpoint; empty: at none, so that litellm finds the model's own provider.
    place = settings.base_url if params.base_url is None else params.base_url or None
    save_model_choice(ls.hub.folders, model, place)
    ls.hub.use_settings(evolve(settings, model=model, base_url=place))
    return Empty()


async def test_model(ls: SelfloopServer, params: Empty) -> ModelTestResult:
    """Make one tiny call and say how it went."""
    ok, message, latency_ms = await ls.hub.workspace_of(ls).workshop.model.test()
    return ModelTestResult(ok=ok, message=message, latency_ms=latency_ms)


def set_key(ls: SelfloopServer, params: ModelSetKeyParams) -> Empty:
    """Hold a key in memory for one origin; it is written nowhere."""
    ls.hub.set_key(params.origin, params.key)
    return Empty()


def list_rules(ls: SelfloopServer, params: Empty) -> RuleListResult:
    """List the commands that the user always allows."""
    return RuleListResult(
        rules=[
            RuleInfo(
                rule_id=rule.id,
                rule=rule.sentence(),
                origin=rule.origin,
                example=rule.example,
                uses=rule.uses,
                created_at=rule.created_at,
            )
            for rule in ls.hub.rules.list()
        ]
    )


def remove_rule(ls: SelfloopServer, params: RuleRemoveParams) -> Empty:
    """Forget a rule: its command asks again."""
    ls.hub.rules.remove(params.rule_id)
    return Empty()


def restart(ls: SelfloopServer, params: RestartParams) -> RestartResult:
    """Have the supervisor start a new worker, at once or when no turn runs. The editor notices nothing."""
    if ls.hub.restarting is not None:
        raise RequestFailed(f"A restart ({ls.hub.restarting}) is already under way, so no second one was begun.")
    restart_id = uuid.uuid4().hex[:12]
    ls.hub.restart(restart_id, when_idle=params.when == "idle")
    return RestartResult(restart_id=restart_id)


HANDLERS = {
    "selfloop/status": status,
    "selfloop/model/list": list_models,
    "selfloop/model/discover": discover_models,
    "selfloop/model/select": select_model,
    "selfloop/model/test": test_model,
    "selfloop/model/setKey": set_key,
    "selfloop/rule/list": list_rules,
    "selfloop/rule/remove": remove_rule,
    "selfloop/restart": restart,
}
