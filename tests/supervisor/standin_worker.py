"""A small worker that speaks the worker pipe and does what a test asks of it. An "effect" is a line in a file.

`STANDIN_HOME` is a folder with `effects` (keys that took effect), `lives` (a line for each start) and, from tests,
`die` (how many of the next workers end at once) and `hang` (the next worker takes no input).

Started as a generation (its `server` folder is the argument), it misbehaves as the generation's `prompts/chat.md` says
in its last line, `behave: …`, and offers the capabilities that the supervisor has recorded.
"""

import ctypes
import json
import os
import re
import signal
import sys
import time

HOME = os.environ["STANDIN_HOME"]


SERVER = sys.argv[1] if len(sys.argv) > 1 and os.path.isdir(sys.argv[1]) else None
BEHAVE = ""
if SERVER is not None:
    with open(os.path.join(os.path.dirname(SERVER), "prompts", "chat.md"), encoding="utf-8") as prompt:
        BEHAVE = prompt.read().rstrip().rpartition("behave: ")[2]


def offered():
    if SERVER is None:
        return {"capabilities": {"positionEncoding": "utf-16"}, "serverInfo": {"name": "other"}}
    with open(os.path.join(SERVER, "selfloop", "supervisor", "capabilities.json"), encoding="utf-8") as recorded:
        result = json.load(recorded)
    if BEHAVE == "lack capabilities":
        del result["capabilities"]["codeActionProvider"]
    if BEHAVE == "offer more":
        result["capabilities"]["hoverProvider"] = True
        result["capabilities"]["executeCommandProvider"]["commands"].append("selfloop.new.command")
    return result


def path(name):
    return os.path.join(HOME, name)


def read_file(name):
    try:
        with open(path(name)) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def append(name, line):
    descriptor = os.open(path(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (line + "\n").encode())
    os.close(descriptor)


def send(window, value):
    body = json.dumps(value).encode()
    data = b"Content-Length: %d\r\nSelfloop-Window: %d\r\n\r\n" % (len(body), window) + body
    while data:
        data = data[os.write(1, data) :]


def notify(window, method, params):
    send(window, {"jsonrpc": "2.0", "method": method, "params": params})


def answer(window, id, result):
    send(window, {"jsonrpc": "2.0", "id": id, "result": result})


def frames():
    while True:
        headers = {}
        while line := sys.stdin.buffer.readline().strip():
            name, _, text = line.decode().partition(": ")
            headers[name] = text
        if not headers:
            return
        body = sys.stdin.buffer.read(int(headers["Content-Length"]))
        yield int(headers["Selfloop-Window"]), headers.get("Selfloop-Key"), json.loads(body)


def offset(text, position):
    """The plainest way to find a position in a text."""
    line = character = 0
    index = 0
    while line < position["line"]:
        found = re.compile("\r\n|\r|\n").search(text, index)
        if found is None:
            return len(text)
        index = found.end()
        line += 1
    while index < len(text) and text[index] not in "\r\n" and character < position["character"]:
        character += 2 if ord(text[index]) > 0xFFFF else 1
        index += 1
    return index


class Worker:
    def __init__(self):
        self.start = None
        self.heard = []
        self.texts = {}
        self.versions = {}
        self.count = 0
        self.hog = None
        self.held = []
        self.questions = {}
        self.updates = [json.loads(line) for line in read_file("updates").splitlines()]

    def control(self, id, method, params):
        if method == "control/start":
            self.start = params
            if BEHAVE == "die when it takes over":
                sys.exit(4)
            if BEHAVE != "never be ready":
                notify(0, "control/ready", {})
        elif method == "control/swapState":
            notify(1, "test/swapState", params)
        elif method == "control/ping" and BEHAVE == "miss heartbeats" and self.start:
            return
        elif method == "control/outcomes":
            done = read_file("effects").split()
            answer(0, id, {"done": [key for key in params["keys"] if key in done]})
        elif method == "control/ping":
            answer(0, id, {})
        elif method == "control/windowOpened":
            self.versions[str(params["window"])] = {}
        elif method == "control/prime" and BEHAVE == "fail to import":
            send(0, {"jsonrpc": "2.0", "id": id, "error": {"code": -1, "message": "ImportError: no such thing"}})
        elif method == "control/prime":
            if BEHAVE == "make noise early":
                os.write(1, b"this is no frame\r\n\r\n")
            if BEHAVE == "talk early":
                for _ in range(100):
                    notify(1, "window/logMessage", {"type": 3, "message": "x" * 100_000})
            if BEHAVE == "answer early":
                answer(1, 12345, None)
            answer(0, id, {"documents": self.versions if BEHAVE != "forget documents" else {}})
        elif method == "control/quiet":
            answer(0, id, {"quiet": True})
        elif method == "control/yield" and not read_file("never yield"):
            answer(0, id, {"yielded": True})
        elif method == "control/resend":
            for update in self.updates:
                if update["seq"] > params["after"] and update.get("sessionId") == params["sessionId"]:
                    notify(params["window"], "selfloop/update", update)
        elif method == "control/stop":
            time.sleep(float(read_file("slow stop") or 0))
            append("stops", str(os.getpid()))
            sys.exit(0)

    def notified(self, window, method, params):
        if method in ("textDocument/didOpen", "textDocument/didChange"):
            self.versions[str(window)][params["textDocument"]["uri"]] = params["textDocument"]["version"]
        elif method == "textDocument/didClose":
            self.versions[str(window)].pop(params["textDocument"]["uri"], None)
        if method == "textDocument/didOpen":
            self.texts[window, params["textDocument"]["uri"]] = params["textDocument"]["text"]
        elif method == "textDocument/didClose":
            self.texts.pop((window, params["textDocument"]["uri"]), None)
        elif method == "textDocument/didChange":
            text = self.texts[window, params["textDocument"]["uri"]]
            for change in params["contentChanges"]:
                if "range" in change:
                    start, end = offset(text, change["range"]["start"]), offset(text, change["range"]["end"])
                    text = text[:start] + change["text"] + text[end:]
                else:
                    text = change["text"]
            self.texts[window, params["textDocument"]["uri"]] = text
        elif method == "$/cancelRequest":
            for held in [item for item in self.held if item == (window, params["id"])]:
                self.held.remove(held)
                error = {"code": -32800, "message": "cancelled"}
                send(window, {"jsonrpc": "2.0", "id": held[1], "error": error})

    def requested(self, window, key, id, method, params):
        do = params.get("do")
        self.count += 1
        if BEHAVE == "die at the third request" and self.count == 3:
            os._exit(5)
        elif BEHAVE == "hang at the third request" and self.count == 3:
            time.sleep(600)
        elif BEHAVE == "wait for the disk at the third request" and self.count == 3:
            # Whoever spawns sleeps as one who waits for the disk does, until the child has opened its stdin.
            opened = (os.POSIX_SPAWN_OPEN, 0, path("disk"), os.O_RDONLY, 0)
            os.posix_spawn("/bin/true", ["true"], {}, file_actions=[opened])
        elif BEHAVE == "answer twice":
            answer(window, id, 1)
        elif BEHAVE == "answer nothing asked":
            answer(window, 987654, 1)
        elif BEHAVE == "make noise":
            os.write(1, b"this is no frame\r\n\r\n")
        elif BEHAVE == "be slow":
            time.sleep(0.7)
        elif BEHAVE == "hog memory" and self.hog is None:
            self.hog = bytearray(b"x") * (1100 * 1024 * 1024)
        if do == "swap":
            answer(window, id, None)
            notify(0, "control/swap", {name: params[name] for name in ("restartId", "number", "tree", "by")})
            return
        if do == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if do == "hold":
            self.held.append((window, id))
        elif do in ("effect", "effect and die", "effect and hold"):
            append("effects", key)
            append("marks", params.get("mark", "-"))
            if do == "effect and die":
                os.kill(os.getpid(), signal.SIGKILL)
            if do == "effect":
                answer(window, id, {"key": key})
        elif do == "twice":
            answer(window, id, 1)
            answer(window, id, 2)
        elif do == "ask":
            self.questions[params["id"]] = (window, id)
            send(window, {"jsonrpc": "2.0", "id": params["id"], "method": params["method"], "params": params["params"]})
        elif do == "notify":
            notify(window, params["method"], params["params"])
            answer(window, id, None)
        elif do == "updates":
            for _ in range(params["count"]):
                update = {"seq": len(self.updates) + 1, "sessionId": "s", "update": {"text": "x" * params["size"]}}
                self.updates.append(update)
                if params["size"] < 10:
                    append("updates", json.dumps(update))
                notify(window, "selfloop/update", update)
            answer(window, id, len(self.updates))
        elif do == "store updates and die":
            for _ in range(params["count"]):
                update = {"seq": len(self.updates) + 1, "sessionId": "s", "update": {}}
                self.updates.append(update)
                append("updates", json.dumps(update))
            os.kill(os.getpid(), signal.SIGKILL)
        elif do == "restart":
            answer(window, id, {"restartId": "r1"})
            notify(0, "control/restart", {"restartId": "r1"})
        elif do == "sleep":
            time.sleep(params["seconds"])
            answer(window, id, None)
        elif do == "blob":
            answer(window, id, "x" * params["size"])
        elif do == "orphan":
            pid = os.posix_spawn("/bin/sleep", ["/bin/sleep", "600"], os.environ, setpgroup=0)
            answer(window, id, pid)
        elif do == "text":
            answer(window, id, self.texts.get((window, params["uri"])))
        elif do == "garbage":
            os.write(1, b"this is no frame\r\n\r\n")
            answer(window, id, None)
        elif do == "noise":
            os.write(2, b"a line on stderr\n")
            answer(window, id, None)
        elif do == "heard":
            answer(window, id, self.heard)
        else:
            answer(window, id, {"pid": os.getpid(), "start": self.start, "window": window, "key": key})

    def run(self):
        for window, key, value in frames():
            id, method, params = value.get("id"), value.get("method"), value.get("params")
            self.heard.append([window, method, params if method != "textDocument/didChange" else None])
            if window == 0:
                self.control(id, method, params)
            elif method is None:
                window, id = self.questions.pop(value["id"])
                answer(window, id, value.get("result"))
            elif method == "initialize":
                answer(window, id, offered())
            elif id is None:
                self.notified(window, method, params)
            else:
                self.requested(window, key, id, method, params or {})


if len(sys.argv) == 1:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
append("lives", str(os.getpid()))
dying = int(read_file("die") or 0)
if dying:
    with open(path("die"), "w") as file:
        file.write(str(dying - 1))
    sys.exit(3)
if BEHAVE == "die at once":
    sys.exit(3)
if read_file("hang") or BEHAVE == "hang at once":
    time.sleep(600)
Worker().run()
