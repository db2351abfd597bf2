"""A workspace with its store, its gates, and a small editor."""

from __future__ import annotations

from pathlib import Path

from attrs import define, field

from selfloop.changes import EXECUTABLE, REGULAR, FileChange, file_change
from selfloop.config import Folders
from selfloop.gates.gate import Decision, GateRecord
from selfloop.gates.gates import Gates
from selfloop.gates.review import GateView
from selfloop.storage.rules import Rules
from selfloop.storage.store import Store
from small_editor import SmallEditor


@define
class Room:
    """All that a test needs."""

    home: Path
    path: Path
    store: Store
    editor: SmallEditor
    gates: Gates = field(init=False)
    published: list[GateRecord] = field(factory=list)
    decided: list[Decision] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.gates = self.opened()

    def opened(self) -> Gates:
        """Open the gates, as a new worker does."""
        return Gates(
            self.store,
            self.path,
            rules=Rules(self.home / "data"),
            publish=self.published.append,
            on_decided=self.decided.append,
        )

    def write(self, path: str, data: bytes, mode: int = REGULAR) -> None:
        """Write a file of the user's."""
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(0o755 if mode == EXECUTABLE else 0o644)

    def read(self, path: str) -> bytes | None:
        """Return a file of the user's."""
        file = self.path / path
        return file.read_bytes() if file.exists() else None

    def change(
        self, path: str, post: bytes | None, *, old_path: str | None = None, post_mode: int | None = None
    ) -> FileChange:
        """Return a change from what is on the disk."""
        file = self.path / (old_path or path)
        pre = file.read_bytes() if file.exists() else None
        pre_mode = None if pre is None else EXECUTABLE if file.stat().st_mode & 0o100 else REGULAR
        mode = None if post is None else post_mode or pre_mode or REGULAR
        change = file_change(path, pre=pre, post=post, pre_mode=pre_mode, post_mode=mode, old_path=old_path)
        assert change is not None
        return change

    def propose(self, *changes: FileChange, session: str = "s") -> GateRecord:
        """Open a gate."""
        record = self.gates.propose(session, changes, title="A change", turn_id="t")
        assert record is not None
        return record

    async def view(self, gate: GateRecord) -> GateView:
        """Read a gate."""
        return await self.gates.read(gate.gate_id, self.editor)

    async def hunks(self, gate: GateRecord) -> list[tuple[str, str]]:
        """Return ids and digests of all hunks of a gate."""
        view = await self.view(gate)
        return [(hunk.hunk_id, hunk.digest) for file in view.files for hunk in file.hunks]


def open_room(home: Path, *, state: Path | None = None) -> Room:
    """Open the workspace below a folder, with the editor whose buffers lie in `state`."""
    workspace = home / "work"
    workspace.mkdir(exist_ok=True)
    store = Store.open(workspace, Folders(home / "data", home / "cache", home / "config"))
    return Room(home, workspace, store, SmallEditor(workspace, state))
