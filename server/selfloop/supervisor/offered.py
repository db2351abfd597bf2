"""What a worker offers, held against what the editor was told, and how the editor hears of the difference.

The editor's `initialize` is answered from the recorded capabilities, so that is the least that a worker must offer.
What a generation offers beyond it is registered where the client can do that, and unregistered when it goes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from selfloop.supervisor.window import Window

_PROVIDERS = {
    "callHierarchyProvider": "textDocument/prepareCallHierarchy",
    "codeActionProvider": "textDocument/codeAction",
    "codeLensProvider": "textDocument/codeLens",
    "colorProvider": "textDocument/documentColor",
    "completionProvider": "textDocument/completion",
    "declarationProvider": "textDocument/declaration",
    "definitionProvider": "textDocument/definition",
    "documentFormattingProvider": "textDocument/formatting",
    "documentHighlightProvider": "textDocument/documentHighlight",
    "documentLinkProvider": "textDocument/documentLink",
    "documentSymbolProvider": "textDocument/documentSymbol",
    "foldingRangeProvider": "textDocument/foldingRange",
    "hoverProvider": "textDocument/hover",
    "implementationProvider": "textDocument/implementation",
    "inlayHintProvider": "textDocument/inlayHint",
    "referencesProvider": "textDocument/references",
    "renameProvider": "textDocument/rename",
    "selectionRangeProvider": "textDocument/selectionRange",
    "signatureHelpProvider": "textDocument/signatureHelp",
    "typeDefinitionProvider": "textDocument/typeDefinition",
    "workspaceSymbolProvider": "workspace/symbol",
}
"""The capabilities that can come and go (LSP 3.17, "client/registerCapability"), and their methods."""
_CLIENT_NAMES = {
    "textDocument/prepareCallHierarchy": ("textDocument", "callHierarchy"),
    "textDocument/documentColor": ("textDocument", "colorProvider"),
}


def covers(offered: Any, recorded: Any) -> bool:
    """Tell whether what is offered is what was recorded, or more."""
    if isinstance(recorded, dict):
        return isinstance(offered, dict) and all(
            key in offered and covers(offered[key], value) for key, value in recorded.items()
        )
    if isinstance(recorded, list):
        return isinstance(offered, list) and all(any(covers(item, one) for item in offered) for one in recorded)
    return bool(offered == recorded)


class Offers:
    """Keeps every window's dynamic registrations in step with the worker that serves."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        """`recorded` is the `InitializeResult` that every editor was answered with."""
        self._recorded: dict[str, Any] = recorded.get("capabilities") or {}
        self._registered: dict[int, dict[str, tuple[str, Any]]] = {}
        """Window → id → method and options."""

    def complete(self, result: Any) -> bool:
        """Tell whether a worker's `InitializeResult` offers all that was recorded."""
        return isinstance(result, dict) and covers(result.get("capabilities"), self._recorded)

    def tell(self, window: Window, result: Any) -> None:
        """Tell a client what the worker that serves now offers beyond the recorded, and what is gone of that."""
        offered = result.get("capabilities") if isinstance(result, dict) else None
        wanted = dict(self._beyond(window, offered if isinstance(offered, dict) else {}))
        before = self._registered.get(window.number, {})
        gone = [{"id": id, "method": before[id][0]} for id in before if wanted.get(id) != before[id]]
        new = [id for id in wanted if before.get(id) != wanted[id]]
        if gone:
            # The field is spelt as LSP spells it.
            window.send(window.shown.question("client/unregisterCapability", {"unregisterations": gone}))
        if new:
            items = [{"id": id, "method": wanted[id][0], "registerOptions": wanted[id][1]} for id in new]
            window.send(window.shown.question("client/registerCapability", {"registrations": items}))
        self._registered[window.number] = wanted

    def _beyond(self, window: Window, offered: dict[str, Any]) -> Iterator[tuple[str, tuple[str, Any]]]:
        for name, method in _PROVIDERS.items():
            if offered.get(name) and not self._recorded.get(name) and _can(window, method):
                options = offered[name] if isinstance(offered[name], dict) else {}
                yield f"selfloop:{method}", (method, {"documentSelector": None, **options})
        commands = _commands(offered) - _commands(self._recorded)
        if commands and _can(window, "workspace/executeCommand"):
            yield "selfloop:commands", ("workspace/executeCommand", {"commands": sorted(commands)})


def _commands(capabilities: dict[str, Any]) -> set[str]:
    provider = capabilities.get("executeCommandProvider")
    commands = provider.get("commands") if isinstance(provider, dict) else None
    return {item for item in commands if isinstance(item, str)} if isinstance(commands, list) else set()


def _can(window: Window, method: str) -> bool:
    """Tell whether a client takes a registration of a method."""
    value: Any = (window.initialize or {}).get("params", {}).get("capabilities")
    area, _, own = method.partition("/")
    for name in _CLIENT_NAMES.get(method, (area, own)):
        value = value.get(name) if isinstance(value, dict) else None
    return isinstance(value, dict) and value.get("dynamicRegistration") is True
