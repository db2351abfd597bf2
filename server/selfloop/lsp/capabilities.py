"""What the server can do, recorded for the supervisor, which answers `initialize` before the worker has booted.

A test holds `supervisor/capabilities.json` equal to what a worker answers; `python -m selfloop.lsp.capabilities`
writes it anew after a feature was added.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lsprotocol import converters, types

import selfloop
from selfloop.lsp.features import register
from selfloop.lsp.server import SelfloopServer, capabilities

RECORD = Path(selfloop.__file__).parent / "supervisor" / "capabilities.json"


def build() -> dict[str, Any]:
    """Return the result of `initialize` as plain JSON."""
    server = register(SelfloopServer(None, 0))
    result = types.InitializeResult(
        capabilities=capabilities(server.protocol),
        server_info=types.ServerInfo(name="selfloop", version=selfloop.__version__),
    )
    return converters.get_converter().unstructure(result)


def main() -> None:
    """Write the record."""
    RECORD.write_text(json.dumps(build(), sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
