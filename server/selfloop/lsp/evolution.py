"""Generations as a person meets them: which there are, what one changed and what proves it, and going back to one."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from selfloop.errors import RequestFailed
from selfloop.lsp.evolution_messages import (
    GenerationGraphResult,
    GenerationInfo,
    GenerationListResult,
    GenerationReadResult,
    GenerationRef,
    LayerInfo,
)
from selfloop.lsp.protocol import Empty, RestartResult
from selfloop.lsp.server import SelfloopServer
from selfloop.lsp.system import usage_info

if TYPE_CHECKING:
    from selfloop.evolution.generations import Generation, Generations


async def _generations(ls: SelfloopServer) -> Generations:
    def opened() -> Generations:
        from selfloop.evolution.generations import (
            Generations,
        )  # Most editors never ask, and the others go on meanwhile.

        return Generations(ls.hub.folders.data, ls.hub.settings().self_folder)

    return await asyncio.to_thread(opened)


async def list_generations(ls: SelfloopServer, params: Empty) -> GenerationListResult:
    """List every generation, the installed package first, and say which one serves."""
    generations = await _generations(ls)
    found = await asyncio.to_thread(generations.list)
    paused = await asyncio.to_thread(generations.paused)
    return GenerationListResult(generations=[_info(one) for one in found], active=ls.hub.generation, paused=paused)


def _info(one: Generation) -> GenerationInfo:
    return GenerationInfo(
        number=one.number,
        commit=one.commit,
        tree=one.tree,
        state=one.state,
        created_at=one.created_at,
        summary=one.summary,
        tokens=usage_info(one.tokens),
        parent=one.parent,
        approved_by=one.approved_by,
        reason=one.reason,
    )


async def read(ls: SelfloopServer, params: GenerationRef) -> GenerationReadResult:
    """Show a generation: its change, its evidence layer by layer, and the sessions that it learned from."""
    generations = await _generations(ls)
    one = await asyncio.to_thread(generations.get, params.number)
    diff = await generations.diff(params.number)
    return GenerationReadResult(
        generation=_info(one),
        diff=diff,
        evidence=[
            LayerInfo(
                name=layer["name"],
                title=layer["title"],
                passed=layer["passed"],
                reason=layer["reason"],
                seconds=layer["seconds"],
                details=list(layer["details"]),
            )
            for layer in one.evidence.get("layers", ())
        ],
        origins=one.origins,
        learned=one.suggestion.get("improvement"),
        verify=one.suggestion.get("verify"),
    )


async def graph(ls: SelfloopServer, params: Empty) -> GenerationGraphResult:
    """Draw the lineage."""
    from selfloop.evolution.picture import draw

    found = await asyncio.to_thread((await _generations(ls)).list)
    return GenerationGraphResult(svg=draw(found, ls.hub.generation))


async def activate(ls: SelfloopServer, params: GenerationRef) -> RestartResult:
    """Have a generation serve; updates of type `generation` tell what becomes of it."""
    generations = await _generations(ls)
    one = await asyncio.to_thread(generations.get, params.number)
    if ls.hub.generation == one.number:
        raise RequestFailed(f"Generation {one.number} serves already, so nothing was changed.")
    await generations.folder(one.number)  # Made where it is missing, and refused where it was edited by hand.
    restart_id = uuid.uuid4().hex[:12]
    ls.hub.swap(restart_id, number=one.number, tree=one.tree if one.number else "", by="user")
    return RestartResult(restart_id=restart_id)


HANDLERS = {
    "selfloop/generation/list": list_generations,
    "selfloop/generation/read": read,
    "selfloop/generation/graph": graph,
    "selfloop/generation/activate": activate,
}
