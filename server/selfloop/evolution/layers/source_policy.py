"""What a candidate's Python may not newly do, read off its syntax: effects at import, doors of its own, disguises.

Invariant: only what is new counts. Every finding is compared with those of the parent's own file, so that code that was
there stays allowed and may be moved about in it.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator

_MODULES = frozenset(
    {
        "_pytest", "_thread", "aiohttp", "atexit", "bdb", "boto3", "builtins", "cProfile", "cffi", "code", "codeop",
        "ctypes", "curses", "dill", "faulthandler", "fcntl", "ftplib", "gc", "getpass", "http", "httpx", "imaplib",
        "imp", "importlib", "inspect", "litellm", "marshal", "mmap", "multiprocessing", "nntplib", "pdb", "pickle",
        "pkgutil", "platform", "poplib", "pluggy", "profile", "pty", "pwd", "py_compile", "pytest", "requests",
        "resource", "runpy", "sched", "select", "selectors", "shelve", "signal", "site", "smtplib", "socket",
        "socketserver", "ssl", "subprocess", "sysconfig", "telnetlib", "threading", "trace", "tracemalloc", "unittest",
        "urllib", "urllib3", "uvloop", "venv", "webbrowser", "websockets", "xmlrpc", "zipapp", "zipimport",
    }
)  # fmt: skip
_CALLS = frozenset(
    {
        "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "exit", "globals", "input", "locals", "print",
        "quit", "setattr", "vars",
    }
)  # fmt: skip
_OS = frozenset(
    {
        "_exit", "abort", "chmod", "chown", "chroot", "dup", "dup2", "environ", "environb", "fdopen", "fork", "forkpty",
        "getenv", "getenvb", "getlogin", "getppid", "kill", "killpg", "link", "memfd_create", "nice", "pipe", "popen",
        "posix_spawn", "posix_spawnp", "ptrace", "putenv", "setsid", "startfile", "symlink", "system", "unsetenv",
        "waitpid", "write",
    }
)  # fmt: skip
_SYS = frozenset({"maxsize", "platform", "version_info", "byteorder"})
"""The only attributes of `sys` that are newly read; all else looks at, or into, whoever runs this."""
_ANYWHERE = frozenset(
    {
        "create_subprocess_exec", "create_subprocess_shell", "open_connection", "open_unix_connection", "start_server",
        "start_unix_server", "create_connection", "create_unix_connection", "create_server", "create_datagram_endpoint",
        "subprocess_exec", "subprocess_shell", "add_signal_handler", "sendto", "import_module", "_getframe", "settrace",
        "setprofile", "addaudithook", "run_path", "run_module", "symlink_to", "hardlink_to", "chmod", "expanduser",
    }
)  # fmt: skip
"""Names of attributes that are doors whatever they are read from."""
_MUTATORS = frozenset(
    {
        "add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update",
        "__setitem__", "__delitem__", "__ior__",
    }
)  # fmt: skip
_PURE_CALLS = frozenset(
    {
        "frozenset", "set", "dict", "list", "tuple", "sorted", "len", "max", "min", "sum", "range", "int", "float",
        "str", "bytes", "bool", "zip", "enumerate", "re.compile", "logging.getLogger", "field", "attrs.field",
        "Factory", "attrs.Factory", "TypeVar", "NewType", "msgspec.field", "dataclasses.field", "cast", "Path",
        "PurePosixPath", "timedelta", "object", "contextvars.ContextVar", "ContextVar", "namedtuple",
        "itemgetter", "attrgetter",
    }
)  # fmt: skip
_DECORATORS = frozenset(
    {
        "frozen", "define", "dataclass", "attrs.frozen", "attrs.define", "property", "staticmethod", "classmethod",
        "contextmanager", "asynccontextmanager", "contextlib.contextmanager", "contextlib.asynccontextmanager",
        "lru_cache", "cache", "functools.lru_cache", "functools.cache", "cached_property", "override", "overload",
        "final", "abstractmethod", "wraps", "functools.wraps", "total_ordering", "runtime_checkable",
        "dataclasses.dataclass",
    }
)  # fmt: skip
_HOOKS = frozenset(
    {"__init_subclass__", "__set_name__", "__class_getitem__", "__del__", "__getattr__", "__getattribute__",
     "__mro_entries__", "__prepare__", "__instancecheck__", "__subclasshook__", "__reduce__", "__reduce_ex__"}
)  # fmt: skip
_PLAIN_DUNDERS = frozenset({"__name__", "__doc__", "__class__", "__len__", "__iter__", "__file__", "__members__"})
_WATCHED = re.compile(r"PYTEST|_pytest|xdist|SELFLOOP_TEST|GITHUB_ACTIONS|junit|^CI$|^/proc\b|^/sys\b|^/dev\b|^/self\b")
"""Constants by which code would find out who runs it."""
_BLOB = re.compile(r"[A-Za-z0-9+/=_-]{240,}")
_SUPPRESSION = re.compile(
    r"#\s*(?:noqa(?!:)|noqa:\s*(?:S|BLE|E7|F|T20|ASYNC)|ruff:|flake8:|type:\s*ignore|pyrefly:|pyright:|mypy:|pylint:"
    r"|pragma:|isort:|fmt:\s*off|yapf:)",
    re.IGNORECASE,
)


def new_findings(before: str | None, after: str, *, test: bool = False) -> list[str]:
    """Return what a file does that it did not do before, one sentence each.

    Args:
        before: the parent's text; None: the file is new.
        after: the candidate's text.
        test: it is a new test: it may import the runner, and print.
    """
    try:
        found = Counter(_findings(after, test))
    except (SyntaxError, tokenize.TokenError, ValueError, RecursionError) as error:
        return [f"it cannot be read as Python ({error})"]
    if before is not None:
        try:
            found -= Counter(_findings(before, test))
        except (SyntaxError, tokenize.TokenError, ValueError, RecursionError):
            return ["the parent's own file cannot be read as Python"]
    return [sentence for sentence, count in found.items() for _ in range(count)]


def _findings(text: str, test: bool) -> Iterator[str]:
    tree = ast.parse(text)
    yield from _comments(text)
    imported = _imported(tree)
    yield from _at_import(tree.body, "the module")
    for node in ast.walk(tree):
        yield from _names(node, test)
        yield from _rebinding(node, imported)
        yield from _silencing(node)


def _comments(text: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and _SUPPRESSION.search(token.string):
            yield f"it adds the blanket suppression `{token.string.strip()}`"


def _imported(tree: ast.Module) -> set[str]:
    """Return every name that an import binds anywhere in the file."""
    return {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


# What runs when the module is imported


def _at_import(body: list[ast.stmt], where: str) -> Iterator[str]:
    for statement in body:
        match statement:
            case ast.Expr(value=ast.Constant()) | ast.Pass() | ast.Import() | ast.ImportFrom():
                continue
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _function(statement, where)
            case ast.ClassDef():
                yield from _class(statement)
            case ast.Assign(targets=targets, value=value) if all(_own_name(target) for target in targets):
                yield from _pure(value, where)
            case ast.AnnAssign(target=target, value=value) if _own_name(target):
                if value is not None:
                    yield from _pure(value, where)
            case ast.If(test=test) if ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                yield from _at_import([*statement.body, *statement.orelse], where)
            case _:
                text = ast.unparse(statement).splitlines()[0][:80]
                yield f"importing it does something: `{text}` in {where} is no definition, import or constant"


def _own_name(target: ast.expr) -> bool:
    if isinstance(target, ast.Tuple):
        return all(_own_name(item) for item in target.elts)
    return isinstance(target, ast.Name) and not (target.id.startswith("__") and target.id != "__all__")


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, where: str) -> Iterator[str]:
    if node.name in _HOOKS:
        yield f"it defines {node.name}, which runs without being called"
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = ast.unparse(called)
        if name not in _DECORATORS and not name.endswith((".setter", ".validator", ".default")):
            yield f"importing it does something: the decorator `@{name}` of {node.name} is not a known one"
    arguments = node.args
    annotations = [one.annotation for one in (*arguments.args, *arguments.kwonlyargs, *arguments.posonlyargs)]
    for value in (*arguments.defaults, *arguments.kw_defaults):
        if value is not None:
            yield from _pure(value, f"a default of {node.name}")
    for annotation in (*annotations, node.returns):
        if annotation is not None and any(isinstance(inner, ast.Call) for inner in ast.walk(annotation)):
            yield f"importing it does something: an annotation of {node.name} calls a function"


def _class(node: ast.ClassDef) -> Iterator[str]:
    for decorator in node.decorator_list:
        name = ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
        if name not in _DECORATORS:
            yield f"importing it does something: the decorator `@{name}` of {node.name} is not a known one"
    for base in node.bases:
        if any(isinstance(inner, ast.Call) for inner in ast.walk(base)):
            yield f"importing it does something: a base of {node.name} is a call"
    for keyword in node.keywords:
        if keyword.arg in (None, "metaclass"):
            yield f"importing it does something: {node.name} has a metaclass"
    yield from _at_import(node.body, f"the class {node.name}")


def _pure(value: ast.expr, where: str) -> Iterator[str]:
    """Yield what evaluating an expression at import may do. A class of the house may be made: `Tool(…)`."""
    for node in ast.walk(value):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            last = name.rpartition(".")[2]
            joined = isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Constant)
            if name not in _PURE_CALLS and not joined and not last.lstrip("_")[:1].isupper():
                yield f"importing it does something: `{name}(…)` is called in {where}"
        elif isinstance(node, ast.NamedExpr | ast.Await | ast.Yield):
            yield f"importing it does something: `{ast.unparse(node)[:60]}` in {where}"


# Doors


def _names(node: ast.AST, test: bool) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            for alias in names:
                yield from _module(alias.name, test)
        case ast.ImportFrom(module=module, names=names, level=level):
            if level:
                yield "it imports relatively, which hides what is meant"
            yield from _module(module or "", test)
            for alias in names:
                if alias.name == "*":
                    yield f"it imports everything of {module}"
                elif (module == "os" and alias.name in _OS) or (module == "sys" and alias.name not in _SYS):
                    yield f"it imports {module}.{alias.name}"
                elif alias.name in _ANYWHERE:
                    yield f"it imports {alias.name}"
        case ast.Call(func=ast.Name(id=name)) if name in _CALLS and not (test and name == "print"):
            yield f"it calls {name}()"
        case ast.Call(func=ast.Name(id="getattr"), args=[_, second, *_]) if not isinstance(second, ast.Constant):
            yield "it reads an attribute whose name is computed"
        case ast.Name(id=name) if name in ("__builtins__", "__loader__", "__spec__") or name in ("exec", "eval"):
            yield f"it names {name}"
        case ast.Attribute(attr=name, value=value):
            yield from _attribute(name, value)
        case ast.Constant(value=str(text)):
            if _WATCHED.search(text) and not test and len(text) < 200:
                yield f"the text {text[:60]!r} looks at who runs it"
            if _BLOB.search(text):
                yield f"it holds {len(text)} characters of encoded data"
        case ast.Constant(value=bytes(data)) if len(data) > 120:
            yield f"it holds {len(data)} bytes of data"
    for name in _identifiers(node):
        if not name.isascii():
            yield f"the name {name!a} is not plain ASCII, so it may pass for another"


def _module(name: str, test: bool) -> Iterator[str]:
    top = name.split(".")[0]
    if top in _MODULES and not (test and top == "pytest"):
        yield f"it imports {name}"
    elif top not in ("selfloop", "") and top not in sys.stdlib_module_names and top not in _KNOWN and not test:
        yield f"it imports {name}, which is none of the packages that evolvable code uses"


_KNOWN = frozenset({"attrs", "msgspec", "rapidfuzz", "tree_sitter", "lsprotocol", "pygls", "rich", "yaml", "click"})


def _attribute(name: str, value: ast.expr) -> Iterator[str]:
    owner = value.id if isinstance(value, ast.Name) else ""
    if (owner == "os" and name in _OS) or (owner == "sys" and name not in _SYS):
        yield f"it uses {owner}.{name}"
    elif name in _ANYWHERE:
        yield f"it uses .{name}"
    elif name.startswith("__") and name.endswith("__") and name not in _PLAIN_DUNDERS:
        yield f"it reaches into an object by .{name}"


def _identifiers(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.alias(name=name, asname=other):
            return [name, other or ""]
    return []


# Other modules' names


def _rebinding(node: ast.AST, imported: set[str]) -> Iterator[str]:
    targets: list[ast.expr] = []
    match node:
        case ast.Assign(targets=found) | ast.Delete(targets=found):
            targets = found
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target) | ast.For(target=target):
            targets = [target]
        case ast.withitem(optional_vars=target) if target is not None:
            targets = [target]
        case ast.Call(func=ast.Attribute(attr=name, value=value)) if name in _MUTATORS:
            root = _root(value)
            if root in imported and _constant_like(value, root):
                yield f"it changes `{ast.unparse(value)}`, which another module owns"
        case ast.Global(names=names):
            yield f"it rebinds the module's own {', '.join(names)} at run time"
    for target in targets:
        for inner in ast.walk(target):
            if isinstance(inner, ast.Attribute | ast.Subscript) and (root := _root(inner)) in imported:
                yield f"it changes `{ast.unparse(target)[:60]}`, which another module owns ({root})"
                break


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _constant_like(value: ast.expr, root: str) -> bool:
    """Tell whether a call of a mutator is on a module's own value, not on something that a function returned."""
    return not any(isinstance(inner, ast.Call) for inner in ast.walk(value)) or root.isupper()


def _silencing(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.ExceptHandler(type=None):
            yield "it catches everything, without a name"
        case ast.ExceptHandler(type=kind, body=body) if kind is not None:
            wide = {"Exception", "BaseException"} & {
                ast.unparse(inner) for inner in ast.walk(kind) if isinstance(inner, ast.Name)
            }
            raises = any(isinstance(inner, ast.Raise) for statement in body for inner in ast.walk(statement))
            if "BaseException" in wide and not raises:
                yield "it swallows BaseException, a cancellation too"
            elif wide and all(isinstance(one, ast.Pass | ast.Continue) or _says_nothing(one) for one in body):
                yield "it swallows every exception without a word"
        case ast.Call(func=func, args=args) if ast.unparse(func).rpartition(".")[2] == "suppress":
            if {"Exception", "BaseException"} & {ast.unparse(one) for one in args}:
                yield "it suppresses every exception"


def _says_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
