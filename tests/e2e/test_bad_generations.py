"""Bad generations, made by changes of the real source where a generation may change it: each ends with its parent.

The worker is the real one. A third of the cases runs by default, all with SELFLOOP_TEST_ALL. What a small stand-in can
show of the supervisor's own part stands in `tests/supervisor/test_supervisor_swaps.py`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from generation_room import CODE_ACTIONS, activate, active, adopt, generation_of, prefixed, states, thaw, titles
from lsp_client import LspClient, RpcError
from scene import GREETING, Starter

CHAT = "server/selfloop/lsp/chat.py"
TURN = "server/selfloop/agent/turn.py"
PREFIX = "server/selfloop/agent/history.py"

WHEN_ASKED = """
import ctypes
import threading

_asked = 0


def _start(seconds, work):
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()


def _hang():
    ctypes.PyDLL(None).sleep(600)


def _crash():
    ctypes.CDLL(None)._exit(9)


_plain_code_action = code_action


async def code_action(ls: SelfloopServer, params: types.CodeActionParams) -> list[types.CodeAction]:
    global _asked
    _asked += 1
{body}
    return await _plain_code_action(ls, params)
"""


def asked(*lines: str) -> str:
    """Return code that does something whenever the editor asks for code actions."""
    return WHEN_ASKED.format(body="\n".join(f"    {line}" for line in lines))


def later(statement: str, seconds: float) -> str:
    """Return code that does something some time after the module was imported."""
    return (
        "import threading as _threading\n\n"
        f"def _later() -> None:\n    {statement}\n\n"
        f"_timer = _threading.Timer({seconds}, _later)\n_timer.daemon = True\n_timer.start()"
    )


NOISE = """
import os

for _fd in range(3, 20):
    try:
        os.write(_fd, b'noise\\n')
    except OSError:
        pass
"""

REFUSED = {
    "an import error": (CHAT, "import no_such_module_anywhere"),
    "an import error where only a turn goes": (TURN, "import no_such_module_anywhere"),
    "a syntax error": (CHAT, "def broken(:"),
    "a syntax error in a tool": ("server/selfloop/agent/tools/search.py", "def broken(:"),
    "an exit at import": (CHAT, "raise SystemExit(0)"),
    "a hard exit at import": (CHAT, "import os\nos._exit(0)"),
    "a crash at import": (CHAT, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
    "an exception at import": (PREFIX, "raise RuntimeError('not today')"),
    "fewer capabilities": (CODE_ACTIONS, "KINDS = []"),
    "a handler that cannot be": (CODE_ACTIONS, "code_action = None"),
    "noise at import": (CHAT, NOISE),
    "the pipe closed at import": (CHAT, "import os\nos.closerange(3, 64)"),
    "an end soon after the import": (CHAT, later("__import__('os')._exit(1)", 0.1)),
}

ROLLED_BACK = {
    "a crash at the third request": asked("if _asked == 3:", "    import os", "    os._exit(7)"),
    "a kill at the first request": asked("import os, signal", "os.kill(os.getpid(), signal.SIGKILL)"),
    "an end at the second request": asked("if _asked == 2:", "    ls.hub.stopping.set()"),
    "a hang in a request": asked("import time", "time.sleep(600)"),
    "a hang later": asked("if _asked == 1:", "    _start(3.0, _hang)"),
    "a slow answer": asked("import asyncio", "await asyncio.sleep(0.8)"),
    "no answers to some requests": asked("import asyncio", "await asyncio.sleep(3600)"),
    "an answer twice": asked(
        "import json", 'ls.hub.pipe.send(ls.window, b\'{"jsonrpc":"2.0","id":%d,"result":null}\' % _asked)'
    ),
    "answers to nothing": asked('ls.hub.pipe.send(ls.window, b\'{"jsonrpc":"2.0","id":987654,"result":null}\')'),
    "noise on the pipe": asked("import os", "os.write(ls.hub.pipe._write_fd, b'this is no frame\\r\\n\\r\\n')"),
    "a broken frame": asked("import os", "os.write(ls.hub.pipe._write_fd, b'Content-Length: 5\\r\\n\\r\\n{]{]{')"),
    "the pipe closed": asked("import os", "os.close(ls.hub.pipe._write_fd)"),
    "a memory hog": asked("global _hog", "_hog = bytearray(b'x') * (1500 * 1024 * 1024)"),
    "a crash shortly before the end": asked("if _asked == 1:", "    _start(30.0, _crash)"),
}


def sample(cases: dict[str, object]) -> list[str]:
    """Return the names of the cases that are tried."""
    return list(cases) if os.environ.get("SELFLOOP_TEST_ALL") else list(cases)[::3]


async def ready(client: LspClient, workspace: Path) -> str:
    """Open a document, type in it, and warm the parent; returns the document's URI."""
    uri = client.open(workspace / "greet.py", GREETING)
    client.edit(uri, (0, 0), (0, 0), "# typed\n")
    for _ in range(6):
        await titles(client, uri)
    return uri


async def unharmed(client: LspClient, uri: str, session: str) -> None:
    """Assert that the parent serves and that nothing was lost."""
    assert await generation_of(client) == 0
    assert "Ask Selfloop about this file" in await titles(client, uri)
    rows = (await client.request("selfloop/session/list", {}))["sessions"]
    assert session in [row["sessionId"] for row in rows]
    assert client.process.returncode is None


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", sample(REFUSED))
async def test_a_generation_that_cannot_serve_is_refused(
    start: Starter, workspace: Path, own_home: Path, case: str
) -> None:
    path, code = REFUSED[case]
    number = await adopt(own_home, prefixed(path, code))
    client = await start()
    uri = await ready(client, workspace)
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    told = await activate(client, number)
    await client.until(lambda: set(states(client, told)) & {"active", "refused"}, 200)
    assert states(client, told)[-1] == "refused"
    await unharmed(client, uri, session)
    state = own_home / "data" / "self" / "active.json"
    assert not state.exists() or active(own_home)["number"] == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", sample(ROLLED_BACK))
async def test_a_generation_that_goes_wrong_is_rolled_back(
    start: Starter, workspace: Path, own_home: Path, case: str
) -> None:
    number = await adopt(own_home, prefixed(CODE_ACTIONS, ROLLED_BACK[case]))
    client = await start(env={"SELFLOOP_PROBATION_SECONDS": "40"})
    uri = await ready(client, workspace)
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    told = await activate(client, number)
    await client.until(lambda: set(states(client, told)) & {"active", "refused"}, 200)
    assert states(client, told)[-1] == "active", client.of_type("generation")[-1]
    asks = [asyncio.ensure_future(titles(client, uri)) for _ in range(6)]
    await client.until(lambda: "rolled-back" in states(client), 60)
    for answer in await asyncio.gather(*asks, return_exceptions=True):
        # What was asked three times in vain is not asked again, and its answer says so.
        assert not isinstance(answer, BaseException) or isinstance(answer, RpcError), answer
    await unharmed(client, uri, session)
    state = active(own_home)
    assert (state["number"], state["rollbacks"]) == (0, 1)


async def test_a_generation_edited_by_hand_is_not_started(start: Starter, workspace: Path, own_home: Path) -> None:
    number = await adopt(own_home, prefixed(CODE_ACTIONS, "# a generation"))
    client = await start()
    uri = await ready(client, workspace)
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    (folder,) = [item for item in (own_home / "data/self/generations").iterdir() if not item.name.startswith(".")]
    thaw(folder)
    with (folder / "server/selfloop/lsp/chat.py").open("a") as file:
        file.write("\n# by hand\n")
    with pytest.raises(RpcError):
        await activate(client, number)
    await unharmed(client, uri, session)
    shutil.rmtree(folder)
    told = await activate(client, number)  # It is made anew from the repository.
    await client.until(lambda: "active" in states(client, told), 90)
