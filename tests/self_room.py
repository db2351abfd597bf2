"""A workspace whose Selfloop may evolve: a tiny self, sessions to learn from, a scripted reflection and maker.

As a program (`python self_room.py WORKSPACE HOME URL SELF [STEP]`) it runs one evolution, or takes up the one that was
cut off, and kills itself with SIGKILL once the step has begun, or `STEP:done` once its result is stored.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from attrs import define, field

from loop_room import Room, _kill_at
from loop_scripts import until
from model_server import Answer, Request, call, text, tools
from selfloop.config import Folders, Settings
from selfloop.evolution.report import LAYERS, JudgeReport, LayerResult
from selfloop.evolution.source import files_below, tree_of
from selfloop.reports import RoundReport

GREETING = '''"""How the agent greets."""


def greet(name: str) -> str:
    """Return the greeting."""
    return "Hello " + name
'''
PROOF = "python -c \"from selfloop.agent.greeting import greet; assert greet('Ann') == 'Hello, Ann'\""
FILE = "server/selfloop/agent/greeting.py"
SUGGESTION = {"file": FILE, "improvement": "Greet with a comma, as the user asked twice.", "verify": PROOF}
SUGGEST = call("suggest_improvement", **SUGGESTION)
EDIT = call("edit_file", path=FILE, old='"Hello " + name', new='"Hello, " + name')
AFTER = GREETING.replace('"Hello " + name', '"Hello, " + name')
TEST_OF_MINE = call(
    "write_file",
    path="tests/evolved/test_comma.py",
    content='from selfloop.agent.greeting import greet\n\n\ndef test_comma():\n    assert greet("A") == "Hello, A"\n',
)
README = call("edit_file", path="README.md", old="It greets.", new="It greets with a comma.")
REFLECTED = [tools(SUGGEST), text("One finding.")]
EVOLVED = [tools(EDIT), text("The comma is there; VERIFY exits 0."), text("SKIP"), tools(README), text("Said so.")]
LOOP = "self-evolution"


def make_self(folder: Path) -> Path:
    """Write a self that is as small as can be."""
    files = {
        "pyproject.toml": "[project]\nname = 'selfloop'\n",
        "README.md": "# Tiny\n\nIt greets.\n",
        "AGENTS.md": "# Rules\n\nBe brief.\n",
        "server/selfloop/__init__.py": '"""A tiny self."""\n',
        "server/selfloop/agent/__init__.py": '"""The agent."""\n',
        FILE: GREETING,
        "server/selfloop/gate.py": '"""Protected."""\n\nALLOWED = False\n',
        "prompts/chat.md": "<!-- The chat. -->\nYou are helpful.\n",
        "prompts/memory/note.md": "# A note\n",
        "tests/test_greeting.py": "def test_nothing():\n    assert True\n",
    }
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


@define
class SelfRoom(Room):
    """A room whose supervisor only notes what it is asked to swap in."""

    swapped: list[tuple[int, str, str]] = field(factory=list)

    def swap(self, restart_id: str, *, number: int, tree: str, by: str) -> None:
        self.swapped.append((number, tree, by))

    @property
    def flow(self) -> Any:
        """The flow of evolutions."""
        return self.workspace.loops._flows["promote-generation"]

    async def round(self, loop_id: str = LOOP, **more: Any) -> RoundReport:
        """Run one evolution to its end, and return its report."""
        report = await super().round(loop_id, **more)
        await until(lambda: loop_id not in self.workspace.loops.scheduler.running())
        return report

    def say(self, *words: str, **state: Any) -> str:
        """Make a session in which the user said something, and return its id."""
        record = self.workspace.sessions.create(title=words[0] if words else "Nothing")
        log = self.workspace.sessions.trajectory(record.id)
        for word in words:
            log.append(
                "user_input", {"message_id": "m", "turn_id": "t", "text": word, "delivery": "start", "editor": ""}
            )
            log.append("tool_result", {"tool_call_id": "c", "name": "shell", "content": "boom", "status": "failed"})
        log.close()
        if state:
            self.workspace.sessions.set_state(record.id, **state)
        return record.id


def open_self_room(workspace: Path, home: Path, base_url: str, self_folder: Path, **settings: Any) -> SelfRoom:
    """Open a workspace, as a server that starts does, with a quick judge."""
    folders = Folders(home / "data", home / "cache", home / "config")
    given = {"model": "scripted", "base_url": base_url, "context_tokens": 60_000, "self_folder": self_folder}
    room = SelfRoom(workspace, folders, Settings(**{**given, **settings}))
    room.flow.judge = QuickJudge()
    return room


@define
class QuickJudge:
    """A judge that is quick: it runs no layer, and finds what a candidate's own text says of itself.

    A line `# G4 fails` in a file of the candidate makes that layer fail; what it was asked stands in `asked`.
    """

    asked: list[tuple[str, tuple[str, ...]]] = field(factory=list)

    async def __call__(
        self,
        parent: Path,
        child: Path,
        *,
        isolation: Any,
        scratch: Path,
        told: Callable[[str], None],
        layers: Collection[str],
    ) -> JudgeReport:
        tree = tree_of(files_below(child))
        self.asked.append((tree, tuple(layers)))
        said = "\n".join(file.read_text() for file in child.rglob("*") if file.is_file())
        found: list[LayerResult] = []
        for name in [one for one in LAYERS if one in layers]:
            passed = f"# {name} fails" not in said
            found.append(LayerResult(name, LAYERS[name], passed, "Fine." if passed else f"It says {name} fails.", ()))
            if not passed:
                break
        return JudgeReport(tree, tree_of(files_below(parent)), 1, tuple(found), {"python": "3"}, "now", 0.0)


def is_reflection(request: Request) -> bool:
    """Tell whether a request is the reflection's."""
    return "You are the reflection of Selfloop" in request.messages[0]["content"]


def plays(reflection: list[Answer], maker: list[Answer]) -> Callable[[Request], Answer]:
    """Play reflection and maker, each by how many replies of its own the request holds."""

    def answer(request: Request) -> Answer:
        said = sum(message["role"] == "assistant" for message in request.messages)
        script = reflection if is_reflection(request) else maker
        return script[min(said, len(script) - 1)]

    return answer


async def main() -> None:
    """See the module."""
    workspace, home, url, folder, *rest = sys.argv[1:]
    room = open_self_room(Path(workspace), Path(home), url, Path(folder))
    rounds = room.workspace.loops.rounds
    if rest:
        step, _, done = rest[0].partition(":")
        _kill_at(rounds, step, done == "done")
    left = rounds.unfinished()
    service = await room.workspace.governed()
    run_id = left[0].run_id if left else service.start(LOOP)
    report = await room.report(run_id)
    sys.stdout.write(report.render())
    await room.close()


if __name__ == "__main__":
    asyncio.run(main())
