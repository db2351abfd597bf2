"""The whole way in a real Emacs with Eglot, as a daemon without a terminal, with the configuration of its page."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from editor_pages import block, environment
from lsp_client import require
from model_server import ModelServer, call, text, tools
from scene import GREETING

PREPARED = """
(package-initialize)
(setq make-backup-files nil auto-save-default nil create-lockfiles nil eglot-events-buffer-size 0
      eglot-sync-connect 60 warning-minimum-level :error vc-handled-backends '(Git))
(defvar asked nil)
(defun completing-read (prompt options &rest _) (setq asked prompt) (car (car (last options))))
(defun told (value) (json-encode value))
"""
"""A person's part is played: an answer to a question is its last option."""


class Emacs:
    """An Emacs that runs as a daemon and is told what to evaluate."""

    def __init__(self, folder: Path, env: dict[str, str], process: asyncio.subprocess.Process) -> None:
        self._folder, self._env, self.process = folder, env, process

    @classmethod
    async def start(cls, program: str, folder: Path, workspace: Path, env: dict[str, str], config: str) -> Emacs:
        """Start one with a configuration, in a workspace."""
        (folder / "init.el").write_text(";;; -*- lexical-binding: t -*-\n" + PREPARED + config)
        with (folder / "output").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(program, "-q", "--no-splash", f"--fg-daemon={folder / 'socket'}", "-l", str(folder / "init.el")),
                cwd=workspace,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        editor = cls(folder, env, process)
        for _ in range(600):
            if (folder / "socket").exists() or process.returncode is not None:
                break
            await asyncio.sleep(0.05)
        return editor

    async def lisp(self, code: str) -> Any:
        """Evaluate Lisp in the buffer that the person looks at, and return its value."""
        told = f"(with-current-buffer (window-buffer (selected-window)) (told (progn {code})))"
        done = await asyncio.create_subprocess_exec(
            *("emacsclient", "-s", str(self._folder / "socket"), "--eval", told),
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(done.communicate(), 90)
        try:
            # Emacs prints a Lisp string, whose escapes are JSON's where it matters here.
            return json.loads(json.loads(out.decode().strip().replace("\n", "\\n")))
        except ValueError as error:
            log = (self._folder / "output").read_text(errors="replace")[-3000:]
            raise AssertionError(f"{code}\n{(out + err).decode()}\n{log}") from error

    async def until(self, look: str, holds: Callable[[Any], Any], timeout_seconds: float = 30) -> Any:
        """Evaluate Lisp again and again until its value is what is waited for."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while not holds(value := await self.lisp(look)):
            assert asyncio.get_running_loop().time() < deadline, (
                f"{look} stays {value!r}\n{await self.lisp('(with-current-buffer (messages-buffer) (buffer-string))')}"
            )
            await asyncio.sleep(0.1)
        return value

    async def close(self) -> None:
        """Quit, without asking about what is unsaved."""
        quit_now = "(progn (dolist (b (buffer-list)) (with-current-buffer b (set-buffer-modified-p nil))) (kill-emacs))"
        done = await asyncio.create_subprocess_exec(
            *("emacsclient", "-s", str(self._folder / "socket"), "--eval", quit_now),
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await asyncio.wait_for(self.process.wait(), 20)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        await done.wait()


@pytest.fixture
async def emacs(workspace: Path, model: ModelServer, tmp_path: Path, own_home: Path) -> AsyncIterator[Emacs]:
    """An Emacs set up by its page, in a workspace that the user trusts, with a file of it open."""
    program = require("emacs")
    require("emacsclient")
    looked = subprocess.run(
        [program, "--batch", "--eval", "(progn (package-initialize) (require 'eglot))"], capture_output=True, timeout=60
    )
    if looked.returncode != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Eglot is not installed for Emacs")
    env = environment(model, tmp_path / "user")
    (tmp_path / "user").mkdir()
    subprocess.run(["selfloop", "trust", str(workspace)], env=env, check=True, capture_output=True, timeout=60)
    folder = tmp_path / "e"
    folder.mkdir(mode=0o700)
    editor = await Emacs.start(program, folder, workspace, env, block("emacs.md", "eglot"))
    await editor.lisp(f'(find-file "{workspace / "greet.py"}") (call-interactively (function eglot)) t')
    await editor.until("(if (eglot-managed-p) 1 0)", bool, 60)
    yield editor
    await editor.close()


TEXT = "(buffer-substring-no-properties (point-min) (point-max))"
MARKS = "(length (flymake-diagnostics))"


async def test_from_a_prompt_to_an_approved_hunk(emacs: Emacs, workspace: Path, model: ModelServer) -> None:
    model.extend(
        tools(
            call("edit_file", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'"),
            call("edit_file", path="greet.py", old="'Bye ' + name", new="f'Bye {name}'"),
        ),
        text("Both use f-strings now."),
    )
    await emacs.lisp('(goto-char (point-max)) (insert "# unsaved\\n") (selfloop-ask "Use f-strings.") t')
    await emacs.until(MARKS, lambda count: count == 2, 60)
    assert await emacs.lisp(TEXT) == GREETING + "# unsaved\n", "nothing is changed before it is approved"
    assert await emacs.until("selfloop-said", bool) == "Both use f-strings now."

    await emacs.lisp("(goto-char (point-min)) (flymake-goto-next-error) (selfloop-approve) t")
    approved = GREETING.replace("'Hello ' + name", "f'Hello {name}'") + "# unsaved\n"
    await emacs.until(TEXT, approved.__eq__)
    await emacs.until(MARKS, lambda count: count == 1)
    said = await emacs.lisp("(with-current-buffer (messages-buffer) (buffer-string))")
    assert "its text is another" not in said
    await emacs.lisp("(goto-char (point-min)) (forward-line 5) (selfloop-reject) t")
    await emacs.until(MARKS, lambda count: count == 0)
    assert await emacs.lisp(TEXT) == approved
    assert (workspace / "greet.py").read_text() == GREETING, "an unsaved buffer is saved by its user"
    await emacs.lisp("(selfloop-undo) t")
    await emacs.until(TEXT, (GREETING + "# unsaved\n").__eq__)


async def test_a_hunk_is_approved_from_the_menu_of_code_actions(
    emacs: Emacs, workspace: Path, model: ModelServer
) -> None:
    model.extend(tools(call("edit_file", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'")), text("Done."))
    await emacs.lisp('(selfloop-ask "Use f-strings.") t')
    await emacs.until(MARKS, lambda count: count == 1, 60)
    titles = await emacs.lisp(
        "(goto-char (point-min)) (flymake-goto-next-error)"
        "(mapcar (lambda (a) (plist-get a :title)) (eglot-code-actions (point) (point) nil nil))"
    )
    assert titles[0].startswith("Approve this hunk")
    # Eglot waits for a command's answer, so the edit is made while it waits.
    await emacs.lisp(
        "(let* ((action (car (append (eglot-code-actions (point) (point) nil nil) nil)))"
        " (c (plist-get action :command)))"
        " (eglot-execute-command (eglot-current-server) (intern (plist-get c :command)) (plist-get c :arguments))) t"
    )
    assert await emacs.lisp(TEXT) == GREETING.replace("'Hello ' + name", "f'Hello {name}'")


async def test_a_chat_file_is_answered_while_the_user_types_on(
    emacs: Emacs, workspace: Path, model: ModelServer
) -> None:
    pieces = [f"word{number} " for number in range(60)]
    model.extend(text(*pieces).paced(0.05))
    await emacs.lisp("(selfloop-chat) t")
    await emacs.until("(or buffer-file-name 0)", lambda name: "/.evo/chat/" in str(name))
    await emacs.lisp('(goto-char (point-max)) (insert "Tell me many words.") (selfloop-send) t')
    await emacs.until(TEXT, lambda now: "word3" in now, 90)
    typed = 0
    while "<!-- selfloop: end" not in await emacs.lisp(TEXT) and typed < 60:
        await emacs.lisp(f'(goto-char (point-max)) (insert "mine {typed}\\n") t')
        await emacs.lisp('(goto-char (point-min)) (search-forward "Tell me") (end-of-line) (insert " more") t')
        typed += 1
        await asyncio.sleep(0.1)
    now = await emacs.until(TEXT, lambda now: "<!-- selfloop: end" in now)
    assert typed > 2
    assert "".join(pieces).strip() in now, "the answer is whole"
    assert [line for line in now.split("\n") if line.startswith("mine")] == [
        f"mine {number}" for number in range(typed)
    ]
    assert "Tell me many words." + " more" * typed + "\n" in now
    assert now.index("Tell me") < now.index("word0") < now.index("<!-- selfloop: end") < now.index("mine 0")


async def test_a_command_is_decided_at_its_gate(emacs: Emacs, workspace: Path, model: ModelServer) -> None:
    model.extend(tools(call("shell", command="make all", network=True)), text("Then not."))
    await emacs.lisp('(selfloop-ask "Build it.") t')
    waits = "(with-current-buffer (messages-buffer) (buffer-string))"
    await emacs.until(waits, lambda said: "Selfloop waits for you: Run: make all" in said, 60)
    await emacs.lisp("(selfloop-commands) t")
    assert await emacs.until("selfloop-said", bool) == "Then not."
    assert await emacs.lisp("asked") == "Selfloop wants to run: make all "
