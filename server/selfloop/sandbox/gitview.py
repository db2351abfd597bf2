"""The `.git` that a jailed command sees: our configuration, the user's HEAD, and an index that stands on the base.

So `git status`, `git log` and `git diff` tell what the agent has changed since it was given the files. It is mounted
read-only. Objects lie elsewhere and are named by the paths that the jail gives them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from selfloop.sandbox.area import Area
from selfloop.sandbox.trees import Entry

if TYPE_CHECKING:
    from selfloop.sandbox.shadow import Shadow

JAIL_OBJECTS = "/run/selfloop/objects"
"""Where the jail shows the shadow's own objects."""
JAIL_BORROWED = "/run/selfloop/borrowed"
"""Where the jail shows the objects of the user's repository."""

_CONFIG = """\
[core]
\trepositoryformatversion = {version}
\tbare = false
\tfileMode = true
\thooksPath = /dev/null
\tfsmonitor = false
\tautocrlf = false
[gc]
\tauto = 0
[advice]
\tdetachedHead = false
{extensions}"""


@frozen
class GitView:
    """The folder that the jail mounts as `.git`."""

    folder: Path
    shadow: Shadow

    async def refresh(self, area: Area, base_entries: Mapping[str, Entry]) -> None:
        """Write it anew.

        Args:
            area: the worktree; its index stands on the files as they are.
            base_entries: what the base has at the paths that the agent has changed.
        """
        await asyncio.to_thread(self._lay_out)
        await asyncio.to_thread(self._copy_index, area)
        if base_entries:
            entries = {area.prefix + path: entry for path, entry in base_entries.items()}
            await self.shadow.objects.set_entries(self.folder / "index", entries)

    def _lay_out(self) -> None:
        for name in ("objects/info", "refs/heads", "info"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        sha256 = self.shadow.objects.object_format == "sha256"
        extensions = "[extensions]\n\tobjectFormat = sha256\n" if sha256 else ""
        branch, commit = self.shadow.origin.head()
        head = commit if branch is None and commit else f"ref: {branch or 'refs/heads/main'}"
        files = {
            "HEAD": f"{head}\n",
            "packed-refs": f"{commit} {branch}\n" if branch and commit else "",
            "config": _CONFIG.format(version=int(sha256), extensions=extensions),
            "objects/info/alternates": f"{JAIL_OBJECTS}\n{JAIL_BORROWED}\n",
        }
        for name, text in files.items():
            (self.folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")
        for name in ("attributes", "exclude"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(self.shadow.git_dir / "info" / name, self.folder / "info" / name)

    def _copy_index(self, area: Area) -> None:
        """Take the worktree's index. A second name is enough: git never writes an index in place."""
        target = self.folder / "index"
        temporary = target.with_name("index.new")
        temporary.unlink(missing_ok=True)
        try:
            os.link(area.index, temporary)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(area.index, temporary)
        if temporary.exists():
            temporary.replace(target)
