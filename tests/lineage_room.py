"""A lineage with one generation more, as an approval leaves it: the installed package and one line in a prompt."""

from __future__ import annotations

from pathlib import Path

from selfloop.changes import file_change
from selfloop.evolution.generations import Generation, Generations
from selfloop.messages import Usage

PROMPT = "prompts/chat.md"
SUMMARY = "Answers are brief."


async def grow(data: Path) -> Generation:
    """Add a generation below a user's data folder, and return it."""
    generations = Generations(data)
    base = await generations.base()
    content, mode = (await generations.home.read(base.tree))[PROMPT]
    change = file_change(PROMPT, pre=content, post=content + b"\nBe brief.\n", pre_mode=mode, post_mode=mode)
    assert change is not None
    tree = await generations.home.amend(base.tree, [change])
    commit = await generations.home.commit(tree, [base.commit], "Be brief")
    layers = [{"name": "G1", "title": "Policy", "passed": True, "reason": "It may.", "seconds": 0.5, "details": []}]
    return await generations.add(
        tree=tree,
        commit=commit,
        parent=0,
        parent_tree=base.tree,
        run_id="run-1",
        summary=SUMMARY,
        suggestion={"file": PROMPT, "improvement": "Be brief.", "verify": "grep brief"},
        evidence={"layers": layers},
        tokens=Usage(120, 0, 30),
        approved_by="user",
        origins=["/project: 20261120T140000000-00000000"],
    )
