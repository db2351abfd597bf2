"""Which tools a turn holds, and the one way to call them."""

from __future__ import annotations

import json
from typing import Any

from selfloop.agent.tools import files, search
from selfloop.errors import Refused
from selfloop.loops.levels import tools_of
from selfloop.sandbox.paths import Door

_TOOLS = {
    "read_file": files.read_file,
    "write_file": files.write_file,
    "list_files": files.list_files,
    "search": search.search,
}


def run(name: str, arguments: str, level: str, door: Door) -> str:
    """Carry out a call and return what the model is told."""
    if name not in tools_of(level) or name not in _TOOLS:
        return f"There is no tool {name!r}, so nothing was done."
    try:
        values: Any = json.loads(arguments or "{}")
        return _TOOLS[name](door, **values)
    except Refused as error:
        return str(error)
    except (ValueError, TypeError) as error:
        return f"The arguments do not fit ({error}), so nothing was done."
