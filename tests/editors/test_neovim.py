"""The whole way in a real Neovim, headless, with the configuration of its page and keys typed into it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from editor_pages import block, environment
from lsp_client import require
from model_server import ModelServer, call, text, tools
from scene import GREETING

NEW_API = (0, 11)


class Neovim:
    """A Neovim that runs headless and is remote controlled: Lua to look, keys to type."""

    def __init__(self, program: str, folder: Path, process: asyncio.subprocess.Process) -> None:
        self._program, self._folder, self.process = program, folder, process
        self._count = 0

    @classmethod
    async def start(cls, program: str, folder: Path, workspace: Path, env: dict[str, str], config: str) -> Neovim:
        """Start one with a configuration, in a workspace."""
        (folder / "init.lua").write_text(config + "\n_G.selfloop = selfloop\n")
        with (folder / "stderr").open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(program, "--headless", "-n", "-u", str(folder / "init.lua"), "--listen", str(folder / "socket")),
                cwd=workspace,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
            )
        editor = cls(program, folder, process)
        for _ in range(200):
            if (folder / "socket").exists():
                break
            await asyncio.sleep(0.05)
        return editor

    async def _remote(self, *arguments: str) -> str:
        done = await asyncio.create_subprocess_exec(
            *(self._program, "--headless", "-u", "NONE", "--server", str(self._folder / "socket"), *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(done.communicate(), 20)
        return (out + err).decode()

    async def lua(self, code: str) -> Any:
        """Run Lua that returns a value, and return that value."""
        self._count += 1
        script = self._folder / f"look-{self._count}.lua"
        script.write_text(code)
        told = await self._remote("--remote-expr", f"json_encode(luaeval('dofile(_A)', '{script}'))")
        try:
            return json.loads(told.strip().splitlines()[-1])
        except (ValueError, IndexError) as error:
            raise AssertionError(f"{code}\n{told}\n{(self._folder / 'stderr').read_text()}") from error

    async def keys(self, keys: str) -> None:
        """Type keys, as a person does."""
        await self._remote("--remote-send", keys)

    async def buffer(self) -> str:
        """Return the text of the current buffer."""
        return "\n".join(await self.lua("return vim.api.nvim_buf_get_lines(0, 0, -1, false)")) + "\n"

    async def until(self, look: str, holds: Callable[[Any], Any], timeout_seconds: float = 30) -> Any:
        """Run Lua again and again until its value is what is waited for."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while not holds(value := await self.lua(look)):
            assert asyncio.get_running_loop().time() < deadline, f"{look} stays {value!r}"
            await asyncio.sleep(0.1)
        return value

    async def close(self) -> None:
        """Quit as a person does, and see that the server has gone too."""
        await self._remote("--remote-send", "<C-\\><C-n>:qa!<CR>")
        try:
            await asyncio.wait_for(self.process.wait(), 15)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


def version(program: str) -> tuple[int, int]:
    """Return a Neovim's version."""
    head = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    major, minor = head.removeprefix("NVIM v").split(".")[:2]
    return int(major), int(minor)


@pytest.fixture
async def neovim(workspace: Path, model: ModelServer, tmp_path: Path, own_home: Path) -> AsyncIterator[Neovim]:
    """A Neovim set up by its page, in a workspace that the user trusts."""
    program = require("nvim")
    env = environment(model, tmp_path / "user")
    subprocess.run(["selfloop", "trust", str(workspace)], env=env, check=True, capture_output=True, timeout=60)
    start = "start-0.11" if version(program) >= NEW_API else "start-0.7"
    config = "vim.g.mapleader = ' '\nvim.o.swapfile = false\n"
    config += block("neovim.md", "commands") + block("neovim.md", start)
    folder = tmp_path / "nvim"
    folder.mkdir()
    editor = await Neovim.start(program, folder, workspace, env, config)
    yield editor
    await editor.close()


async def edit(neovim: Neovim, name: str) -> None:
    """Open a file, and wait until the server that this starts has answered."""
    await neovim.keys(f":edit {name}<CR>")
    await neovim.until("return #(vim.lsp.get_clients or vim.lsp.get_active_clients)()", lambda count: count == 1)


DIAGNOSTICS = "return #vim.diagnostic.get(0)"


async def test_from_a_prompt_to_an_approved_hunk(neovim: Neovim, workspace: Path, model: ModelServer) -> None:
    model.extend(
        tools(
            call("edit_file", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'"),
            call("edit_file", path="greet.py", old="'Bye ' + name", new="f'Bye {name}'"),
        ),
        text("Both use f-strings now."),
    )
    await edit(neovim, "greet.py")
    await neovim.keys("Go# unsaved<Esc>gg")
    await neovim.keys(":Selfloop use f-strings in this file<CR>")
    await neovim.until(DIAGNOSTICS, lambda count: count == 2, 60)
    assert await neovim.buffer() == GREETING + "# unsaved\n", "nothing is changed before it is approved"
    told = await neovim.lua("return vim.tbl_map(function(d) return { d.source, d.lnum } end, vim.diagnostic.get(0))")
    assert told == [["selfloop", 1], ["selfloop", 5]]
    assert await neovim.until("return selfloop.said or ''", bool) == "Both use f-strings now."

    await neovim.keys("gg]s")
    assert await neovim.lua("return vim.api.nvim_win_get_cursor(0)[1]") == 2
    await neovim.keys(" sy")
    approved = GREETING.replace("'Hello ' + name", "f'Hello {name}'") + "# unsaved\n"
    await neovim.until(
        "return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\\n') .. '\\n'", approved.__eq__
    )
    await neovim.until(DIAGNOSTICS, lambda count: count == 1)
    await neovim.keys("6G sn")
    await neovim.until(DIAGNOSTICS, lambda count: count == 0)
    assert await neovim.buffer() == approved
    assert (workspace / "greet.py").read_text() == GREETING, "an unsaved buffer is saved by its user"

    await neovim.keys(":SelfloopUndo<CR>")
    await neovim.until(
        "return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\\n') .. '\\n'",
        (GREETING + "# unsaved\n").__eq__,
    )


async def test_a_chat_file_is_answered_while_the_user_types_on(
    neovim: Neovim, workspace: Path, model: ModelServer
) -> None:
    pieces = [f"word{number} " for number in range(60)]
    model.extend(text(*pieces).paced(0.05))
    await edit(neovim, "greet.py")
    await neovim.keys(":SelfloopChat<CR>")
    name = await neovim.until("return vim.api.nvim_buf_get_name(0)", lambda name: "/.evo/chat/" in name)
    await neovim.keys("GoTell me many words.<Esc>")
    await neovim.keys(":SelfloopSend<CR>")
    body = "return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\\n')"
    await neovim.until(body, lambda now: "word3" in now, 90)
    typed = 0
    while "<!-- selfloop: end" not in await neovim.lua(body) and typed < 60:
        await neovim.keys(f"Gomine {typed}<Esc>")
        await neovim.keys("gg/Tell me<CR>A more<Esc>")
        typed += 1
    await neovim.until(body, lambda now: "<!-- selfloop: end" in now)
    now = await neovim.lua(body)
    assert typed > 2
    assert "".join(pieces).strip() in now, "the answer is whole"
    assert [line for line in now.split("\n") if line.startswith("mine")] == [
        f"mine {number}" for number in range(typed)
    ]
    assert "Tell me many words." + " more" * typed + "\n" in now
    assert now.index("Tell me") < now.index("word0") < now.index("<!-- selfloop: end") < now.index("mine 0")
    assert Path(name).parent == workspace / ".evo" / "chat"


async def test_a_command_is_decided_at_its_gate(neovim: Neovim, workspace: Path, model: ModelServer) -> None:
    model.extend(tools(call("shell", command="make all", network=True)), text("Then not."))
    await neovim.lua("vim.ui.select = function(items, how, done) asked = how.prompt; done(items[#items]) end")
    await edit(neovim, "greet.py")
    await neovim.keys(":Selfloop build it<CR>")
    model.wait(1, 60)
    gate = "selfloop.run('selfloop.gate.list', { state = 'open' }, function(r) open = #r.gates end) return open or 0"
    await neovim.until(gate, lambda count: count == 1)
    await neovim.keys(" sg")
    assert await neovim.until("return selfloop.said or ''", bool) == "Then not."
    assert await neovim.lua("return asked") == "Selfloop wants to run: make all"


def test_the_blocks_of_the_page_are_lua(tmp_path: Path) -> None:
    """The block for the newer API cannot run in an old Neovim, but it must at least be a program."""
    program = require("nvim")
    for name in ("commands", "start-0.11", "start-0.7"):
        file = tmp_path / f"{name}.lua"
        file.write_text(block("neovim.md", name))
        check = f"local f, e = loadfile('{file}') io.stderr:write(e or 'parsed')"
        done = subprocess.run(
            [program, "--headless", "-u", "NONE", "-c", f"lua {check}", "-c", "qa!"],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.stderr == "parsed"
