"""The built-in offline model: a real HTTP server on loopback that plays an honest agent, without any model behind it.

It is for `selfloop demo` and for trying the editor without a key. It speaks the OpenAI format like any endpoint, so
that everything in front of it is the real thing. It looks at the folder, reads a file, changes two places of it by
what it has read, checks the syntax where it can, and says what came of it. It keeps no state: each step follows from
the conversation alone.

Invariant: it refuses, with status 400, a conversation in which a tool call of its own has no result, and it never
claims what no result has told it.

    with OfflineModel() as model:       python -m selfloop.offline
        … model.url …
"""

from __future__ import annotations

import ast
import json
import re
import secrets
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any, Self

from attrs import frozen

MODEL_NAME = "offline"
_MOST_FILES_READ = 6
_COMMENTS = {
    **dict.fromkeys(
        (".js", ".jsx", ".ts", ".tsx", ".go", ".rs", ".java", ".c", ".h", ".cc", ".cpp", ".cs", ".kt"), "//"
    ),
    **dict.fromkeys((".rb", ".sh", ".pl", ".r", ".jl", ".ex"), "#"),
}
_PROSE = {".md", ".txt", ".rst"}
_NAMED = re.compile(
    r"^([ \t]*)(?:(?:export|pub|public|static|async|private|default)\s+)*(?:function|func|fn|def|class)\s+(\w+)"
)
_FENCED = re.compile(r"<data-(\w+) source=[^\n]*>\n(.*)</data-\1>", re.DOTALL)
_PATH = re.compile(r"^\s*([^\s:()]+\.\w+)\s*(?:\(.*\))?$")
_FOLDER = re.compile(r"^\s*([^\s:()]+)/")
_START = """\
def greet(name):
    return f"Hello, {name}!"


def part(name):
    return f"Goodbye, {name}!"
"""


@frozen
class Step:
    """What the model does next."""

    text: str
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()


@frozen
class Done:
    """A call of this turn, and what came back."""

    name: str
    arguments: dict[str, Any]
    result: str

    @property
    def failed(self) -> bool:
        return "nothing was" in self.result or self.result.startswith(("Error", "The user did not allow"))

    @property
    def path(self) -> str:
        return str(self.arguments.get("path", ""))


class Refused(Exception):
    """Raised when a conversation cannot be a right one; answered with status 400."""


def play(messages: list[dict[str, Any]], tools: list[str]) -> Step:
    """Return the next step of a conversation.

    Raises:
        Refused: a tool call has no result, a result no call, or there is nothing to answer.
    """
    _check(messages)
    question, done = _turn(messages)
    if not {"list_files", "read_file", "edit_file"} <= set(tools):
        return _without_tools(messages)
    if not any(one.name == "list_files" for one in done):
        return Step("I look at what is in this folder.", (("list_files", {}),))
    edited = [one for one in done if one.name == "edit_file"]
    landed = [one for one in edited if not one.failed]
    if landed:
        return _after_edits(landed, done, tools)
    reads = [one for one in done if one.name == "read_file"]
    if reads and not any(one.path == reads[-1].path for one in edited):
        edits = edits_for(reads[-1].path, _fenced(reads[-1].result)) if not reads[-1].failed else []
        if edits:
            calls = tuple(("edit_file", {"path": reads[-1].path, "old": old, "new": new}) for old, new in edits)
            return Step(f"I have read {reads[-1].path}. I change two places of it.", calls)
    return _next_file(question, done, reads, tools)


def edits_for(path: str, text: str) -> list[tuple[str, str]]:
    """Return two edits of a text, as (the one place where it stands, what to put there), or none."""
    suffix = PurePosixPath(path).suffix.lower()
    lines = text.split("\n")
    places: list[tuple[int, str, str]] = []
    if suffix == ".py":
        places = list(_undocumented(text, lines))
    elif suffix in _COMMENTS:
        for number, line in enumerate(lines):
            named = _NAMED.match(line)
            if named and not (number and lines[number - 1].strip().startswith((_COMMENTS[suffix], "*", "@"))):
                places.append((number, line, f"{named[1]}{_COMMENTS[suffix]} {_words(named[2])}.\n{line}"))
    elif suffix in _PROSE:
        places = [
            (number, line, f"{line}\n\n*{line.strip('# ')}: read by the offline model.*")
            for number, line in enumerate(lines)
            if line.startswith("#") and "offline model" not in text
        ]
    places = [place for place in places if text.count(place[1]) == 1]
    if len(places) < 2 or places[-1][0] - places[0][0] < 2:
        return []
    return [(old, new) for _, old, new in (places[0], places[-1])]


class OfflineModel:
    """The server. It listens on a free port of loopback from `start` to `close`."""

    def __init__(self, *, pause_seconds: float = 0.01, part: Callable[..., Step] = play) -> None:
        """Take how long to wait between two words, so that one sees the answer stream, and the part that it plays."""
        own = {"pause_seconds": pause_seconds, "part": staticmethod(part)}
        self._http = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), own))
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name="offline model", daemon=True
        )

    @property
    def url(self) -> str:
        """The base URL to set."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def start(self) -> str:
        """Begin to answer; return the base URL."""
        self._thread.start()
        return self.url

    def close(self) -> None:
        """Stop answering."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check(messages: list[dict[str, Any]]) -> None:
    """Refuse what an honest model could not answer."""
    open_calls: list[str] = []
    for message in messages:
        role = message.get("role")
        if role == "tool":
            identity = message.get("tool_call_id")
            if identity not in open_calls:
                raise Refused(f"The result {identity!r} answers no open tool call.")
            open_calls.remove(identity)
            continue
        if open_calls:
            raise Refused(f"The tool calls {', '.join(open_calls)} have no results.")
        if role == "assistant":
            open_calls = [str(call.get("id")) for call in message.get("tool_calls") or ()]
    if open_calls:
        raise Refused(f"The tool calls {', '.join(open_calls)} have no results.")
    if not messages or messages[-1].get("role") not in ("user", "tool"):
        raise Refused("There is nothing to answer: the last message is neither the user's nor a tool's.")


def _turn(messages: list[dict[str, Any]]) -> tuple[str, list[Done]]:
    """Return the last words of the user, and what was done since."""
    asked = max((at for at, message in enumerate(messages) if message.get("role") == "user"), default=0)
    named: dict[str, tuple[str, dict[str, Any]]] = {}
    done: list[Done] = []
    for message in messages[asked:]:
        for call in message.get("tool_calls") or ():
            named[call["id"]] = (call["function"]["name"], json.loads(call["function"]["arguments"]))
        if message.get("role") == "tool":
            name, arguments = named[message["tool_call_id"]]
            done.append(Done(name, arguments, _text(message)))
    return _text(messages[asked]), done


def _without_tools(messages: list[dict[str, Any]]) -> Step:
    """Answer where there is nothing to act with: the judge's question, or a summary."""
    asked = " ".join(_text(message) for message in messages)
    if "CONTINUE" in asked and "NEW" in asked:
        return Step("CONTINUE")
    return Step("So far: " + " ".join(_text(messages[-1]).split())[:600])


def _next_file(question: str, done: list[Done], reads: list[Done], tools: list[str]) -> Step:
    """Read the next file that looks worth it; in a folder without any, begin one."""
    seen = {one.path for one in reads}
    paths, folders = _listed(done)
    waiting = [path for path in sorted(paths, key=lambda path: _rank(path, question)) if path not in seen]
    if waiting and len(reads) < _MOST_FILES_READ:
        return Step(f"I read {waiting[0]}.", (("read_file", {"path": waiting[0]}),))
    listed = {one.path for one in done if one.name == "list_files"}
    if not paths and folders - listed and len(listed) < _MOST_FILES_READ:
        folder = min(folders - listed)
        return Step(f"I look into {folder}.", (("list_files", {"path": folder}),))
    written = [one for one in done if one.name == "write_file"]
    if not reads and not written and "write_file" in tools:
        arguments = {"path": "greeting.py", "content": _START}
        return Step("There is no file here that I know how to change, so I begin one.", (("write_file", arguments),))
    if written and not written[-1].failed and written[-1].path not in seen:
        return Step(f"I read {written[-1].path} again.", (("read_file", {"path": written[-1].path}),))
    read = ", ".join(dict.fromkeys(one.path for one in reads)) or "nothing"
    return Step(f"I have read {read} and found no two places that I could improve, so nothing more was changed.")


def _after_edits(landed: list[Done], done: list[Done], tools: list[str]) -> Step:
    """Check what was changed, once, then report."""
    path = landed[-1].path
    checks = [one for one in done if one.name == "shell"]
    command = _check_command(path)
    if command and not checks and "shell" in tools:
        return Step("I check that it still parses.", (("shell", {"command": command, "timeout_seconds": 60}),))
    changed = "two places" if len(landed) > 1 else "one place"
    text = f"I changed {changed} of `{path}`: each now says what it does. Nothing else was touched."
    if checks and checks[-1].failed:
        text += " The check was not run."
    elif checks:
        exit_code = re.search(r"[Ee]xit code (-?\d+)", checks[-1].result)
        text += f" The check ended with exit code {exit_code[1]}." if exit_code else " The check's end is not known."
    return Step(text + "\n\n(This is the built-in offline model: a script, not a mind. Set a model to do real work.)")


def _check_command(path: str) -> str | None:
    if path.endswith(".py"):
        return f"python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' {shlex.quote(path)}"
    return f"node --check {shlex.quote(path)}" if path.endswith((".js", ".mjs")) else None


def _undocumented(text: str, lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """Find the functions without a docstring; a place is the header with the line that follows it."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in sorted(found, key=lambda node: node.lineno):
        first = node.body[0]
        header = first.lineno - 2
        if ast.get_docstring(node) is not None or header < node.lineno - 1 or not lines[header].endswith(":"):
            continue
        old = "\n".join(lines[node.lineno - 1 : first.lineno])
        indent = " " * first.col_offset
        head = "\n".join(lines[node.lineno - 1 : header + 1])
        yield node.lineno, old, f'{head}\n{indent}"""{_words(node.name)}."""\n{lines[first.lineno - 1]}'


def _words(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").strip().lower()
    return (spaced[:1].upper() + spaced[1:]) or "Nothing to say"


def _listed(done: list[Done]) -> tuple[list[str], set[str]]:
    """Return the files worth reading and the folders that the listings name."""
    paths: list[str] = []
    folders: set[str] = set()
    for one in done:
        if one.name != "list_files":
            continue
        for line in _fenced(one.result).split("\n"):
            path, folder = _PATH.match(line), _FOLDER.match(line)
            if path and PurePosixPath(path[1]).suffix.lower() in {".py", *_COMMENTS, *_PROSE}:
                paths.append(path[1])
            elif folder and not folder[1].startswith("."):
                folders.add(folder[1])
    return paths, folders


def _rank(path: str, question: str) -> tuple[object, ...]:
    """Order files: named by the user first, then code before prose, real before test, shallow before deep."""
    pure = PurePosixPath(path)
    test = "test" in path.lower() or pure.name in ("__init__.py", "setup.py", "conftest.py")
    return (pure.name not in question, pure.suffix.lower() in _PROSE, test, pure.suffix != ".py", len(pure.parts), path)


def _fenced(result: str) -> str:
    """Return what a result shows of a file, without what the tool says about it."""
    fenced = _FENCED.search(result)
    return fenced[2] if fenced else result


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a client that goes away in the middle of an answer is nothing to report."""


def _chunks(step: Step, input_tokens: int) -> Iterator[dict[str, Any]]:
    """Return the stream of one step, in OpenAI's format."""
    yield _chunk({"role": "assistant", "content": ""})
    for word in re.findall(r"\S+\s*", step.text):
        yield _chunk({"content": word})
    written = len(step.text)
    for index, (name, arguments) in enumerate(step.calls):
        text = json.dumps(arguments, ensure_ascii=False)
        written += len(text)
        head = {"index": index, "id": f"call_{secrets.token_hex(6)}", "type": "function"}
        yield _chunk({"tool_calls": [{**head, "function": {"name": name, "arguments": ""}}]})
        for at in range(0, len(text), 64):
            yield _chunk({"tool_calls": [{"index": index, "function": {"arguments": text[at : at + 64]}}]})
    yield _chunk({}, "tool_calls" if step.calls else "stop")
    usage = {"prompt_tokens": input_tokens, "completion_tokens": written // 4 + 1}
    yield {**_chunk({}), "choices": [], "usage": {**usage, "total_tokens": sum(usage.values())}}


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "offline", "object": "chat.completion.chunk", "created": int(time.time()), "model": MODEL_NAME}
    return {**head, "choices": [choice]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pause_seconds = 0.0
    part: Callable[..., Step] = staticmethod(play)
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        if self.path.rstrip("/").endswith("/models"):
            self._json(
                200, {"object": "list", "data": [{"id": MODEL_NAME, "object": "model", "context_length": 131_072}]}
            )
        else:
            self._json(404, {"error": {"message": f"There is no {self.path} here."}})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.path.endswith("/chat/completions"):
            return self._json(404, {"error": {"message": f"There is no {self.path} here."}})
        try:
            body = json.loads(data)
            tools = [tool["function"]["name"] for tool in body.get("tools") or ()]
            step = self.part(body["messages"], tools)
        except (Refused, ValueError, KeyError, TypeError, AttributeError) as error:
            return self._json(
                400, {"error": {"message": str(error) or "This is no request.", "type": "invalid_request"}}
            )
        self._stream(_chunks(step, len(data) // 4))

    def _stream(self, chunks: Iterator[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            self._piece(b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n")
            time.sleep(self.pause_seconds)
        self._piece(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _piece(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _json(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    """Serve until the input ends; the first line of the output is the base URL."""
    with OfflineModel() as model:
        sys.stdout.write(f"{model.url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
