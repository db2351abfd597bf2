"""The house keeps its layers: each room imports only what stands below it, and each danger has one door."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

PACKAGE = Path(__file__).parent.parent / "server" / "selfloop"

LAYERS: list[set[str]] = [
    {"errors", "wire"},
    {"reports"},
    {"config", "messages", "updates"},
    {"changes"},
    {"model", "sandbox", "storage"},
    {"gates"},
    {"agent"},
    {"loops"},
    {"evolution"},
    {"host"},
    {"workshop"},
    {"session"},
    {"lsp"},
    {"__main__"},
]
"""Bottom to top. What stands in one layer does not import its siblings, but for the values at the bottom."""

TERMINAL = {
    "lsp.protocol",
    "lsp.loop_messages",
    "lsp.evolution_messages",
    "reports",
    "updates",
    "wire",
    "config",
    "errors",
}
"""What the terminal may import at the top of a file: it is a client, by the protocol."""

TERMINAL_LATE = {
    "storage.trust",
    "sandbox.isolation",
    "sandbox.git",
    "offline",
    "evolution",
    "evolution.judge",
    "evolution.source",
}
"""What single commands of the terminal may import besides, inside the functions that need it."""


def modules() -> list[tuple[str, Path]]:
    """Return every module's name below `selfloop`, and its file."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), file))
    return [(name, file) for name, file in found if name]


def imports(file: Path, *, top_only: bool = False) -> set[str]:
    """Return what a file imports of ours, without the leading `selfloop.`; type-checking blocks count."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = ast.walk(tree)
    if top_only:
        nodes = (node for statement in tree.body for node in _outside_functions(statement))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "selfloop":
            module = node.module.removeprefix("selfloop").lstrip(".")
            names |= {module} if module else {alias.name for alias in node.names if (PACKAGE / alias.name).exists()}
            if module:
                names |= {
                    f"{module}.{alias.name}"
                    for alias in node.names
                    if (PACKAGE / module.replace(".", "/") / f"{alias.name}.py").exists()
                }
        elif isinstance(node, ast.Import):
            names |= {
                alias.name.removeprefix("selfloop.") for alias in node.names if alias.name.startswith("selfloop.")
            }
    return names


def _outside_functions(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    return [node, *(inner for child in ast.iter_child_nodes(node) for inner in _outside_functions(child))]


def room(module: str) -> str:
    """Return the room a module is in."""
    return module.split(".")[0]


def level(name: str) -> int | None:
    """Return a room's layer."""
    return next((index for index, rooms in enumerate(LAYERS) if name in rooms), None)


def test_every_room_imports_only_what_stands_below_it() -> None:
    broken = []
    for module, file in modules():
        own = room(module)
        here = level(own)
        if here is None:
            continue
        for name in imports(file):
            other = room(name)
            there = level(other)
            if other == own or (there is not None and there < here) or (own == "__main__" and other == "cli"):
                continue
            if other == "supervisor":
                continue  # The next but one test says what of it.
            broken.append(f"{module} imports {name}")
    assert not broken


def test_every_module_has_a_place_in_the_house() -> None:
    known = set().union(*LAYERS) | {"supervisor", "cli", "offline"}
    assert {room(module) for module, _ in modules()} <= known


def test_the_supervisor_imports_nothing_of_ours_but_itself() -> None:
    for module, file in modules():
        if room(module) == "supervisor" and module != "supervisor.worker_boot":
            assert {room(name) for name in imports(file)} <= {"supervisor"}, module


def test_the_supervisor_imports_only_the_standard_library() -> None:
    import sys

    for module, file in modules():
        if room(module) != "supervisor":
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and node.level == 0
                else []
            )
            for name in names:
                assert name.split(".")[0] in sys.stdlib_module_names | {"selfloop"}, f"{module} imports {name}"


def test_of_the_supervisor_others_import_only_the_contract_and_the_text_of_documents() -> None:
    for module, file in modules():
        if room(module) != "supervisor":
            taken = {name for name in imports(file) if room(name) == "supervisor"}
            assert taken <= {"supervisor", "supervisor.contract", "supervisor.documents"}, module


def test_the_terminal_is_a_client() -> None:
    for module, file in modules():
        if room(module) != "cli":
            continue
        top = {name for name in imports(file, top_only=True) if room(name) != "cli"}
        assert top <= TERMINAL | {"lsp"}, module
        late = {name for name in imports(file) if room(name) != "cli"} - top
        assert late <= TERMINAL | TERMINAL_LATE | {"lsp", "storage", "sandbox"}, module


def test_lsp_is_spoken_only_in_its_room() -> None:
    for module, file in modules():
        if room(module) in {"lsp"}:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not any(name.split(".")[0] in {"pygls", "lsprotocol"} for name in names), module


def test_models_are_called_only_in_their_room() -> None:
    for module, file in modules():
        if room(module) != "model":
            assert (
                "litellm" not in file.read_text(encoding="utf-8").replace("litellm's", "").split("import litellm")[1:]
            ), module


def test_commands_run_only_in_the_sandbox_and_the_supervisor_starts_its_worker() -> None:
    starters = {"create_subprocess_exec", "create_subprocess_shell", "Popen", "posix_spawn", "system", "fork"}
    for module, file in modules():
        if room(module) in {"sandbox", "supervisor", "cli"}:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) != "platform.system":
                assert node.attr not in starters, f"{module}:{node.lineno}"


def test_one_function_runs_git() -> None:
    """Only sandbox/git.py names the program; everybody else calls its function."""
    for module, file in modules():
        if module == "sandbox.git" or room(module) == "cli":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.List | ast.Tuple) and node.elts:
                first = node.elts[0]
                starts = isinstance(first, ast.Constant) and first.value == "git"
                assert not starts or not _is_command(node), f"{module}:{node.lineno}"


def _is_command(node: ast.List | ast.Tuple) -> bool:
    return len(node.elts) > 1 and isinstance(node.elts[1], ast.Constant) and str(node.elts[1].value).startswith("-")


def test_no_import_goes_in_a_circle() -> None:
    graph = {module: imports(file) & {name for name, _ in modules()} for module, file in modules()}
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            raise AssertionError(" → ".join((*path[path.index(module) :], module)))
        if module in done:
            return
        for name in graph.get(module, set()) - {module}:
            walk(name, (*path, module))
        done.add(module)

    for module in graph:
        walk(module, ())


def test_no_file_has_grown_beyond_its_one_job() -> None:
    long = {module: file.read_text(encoding="utf-8").count("\n") for module, file in modules()}
    assert {module: lines for module, lines in long.items() if lines > 420} == {}


def test_names_of_test_files_are_unique() -> None:
    tests = Path(__file__).parent
    names = Counter(path.name for path in tests.rglob("test_*.py") if "mini" not in path.relative_to(tests).parts)
    assert [name for name, count in names.items() if count > 1] == [], "pytest imports only one of a name"


def test_every_module_says_what_it_is() -> None:
    for module, file in modules():
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), module
