"""The extension in the real VS Code workbench: activation, the panel, the stream, an approval; in milliseconds.

What a user sees is measured where it appears: a script in the page and in the panel's web view notes the frame after
the change. Page, model and test read the same machine's clock. The targets are of milliseconds, not ratios, so there is
no baseline; run it on a machine that does nothing else.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure, quantile
from code_server import NOT_INSTALLED, CodeServer, find_editors, launch_options
from model_server import DONE, Answer, ModelServer, Pause, Piece, Request, call, chunk, event, text, tools
from repositories import make_repository
from scene import environment_for

CHUNKS, GAP_SECONDS, ROUNDS, HUNKS = 120, 0.05, 3, 8
FILE = "".join(f"step_{number:02d} = 'old'\n\n\n" for number in range(HUNKS))

WATCH = r"""
(() => {
  const now = () => performance.timeOrigin + performance.now();
  const notes = (window.selfloopNotes = { chunks: [], edits: [], status: 0 });
  const seen = new Set();
  const painted = (note) => requestAnimationFrame(() => { const at = now(); note(at); });
  const look = () => {
    if (!notes.status && document.querySelector('.statusbar-item[id^="selfloop"]')) notes.status = now();
    const log = document.querySelector('[role=log]');
    if (log) for (const [mark, sent] of log.textContent.matchAll(/@(\d+\.\d+)@/g)) {
      if (seen.has(mark)) continue;
      seen.add(mark);
      painted((at) => notes.chunks.push([at, 1000 * Number(sent)]));
    }
    for (const line of document.querySelectorAll('.editor-instance .view-line')) {
      const found = /step_(\d\d) = 'new'/.exec(line.textContent.replaceAll('\u00a0', ' '));
      if (!found || seen.has(found[0])) continue;
      seen.add(found[0]);
      painted((at) => notes.edits.push([at, Number(found[1])]));
    }
  };
  new MutationObserver(look).observe(document, { subtree: true, childList: true, characterData: true });
  addEventListener('mousedown', () => { notes.pressed = now(); }, true);
})();
"""


def run() -> list[Figure]:
    """Measure all four in one workbench; nothing where the editors are not installed."""
    parts = find_editors()
    if parts is None:
        print(f"     skipped: {NOT_INSTALLED}")
        return []
    return asyncio.run(_measure(parts))


def _absolute(name: str, target: float, values: list[float]) -> Figure:
    return Figure(name, "ms", target, quantile(values, 0.5), tuple(values), (0.0,), "the clock", difference=True)


def _play(request: Request) -> Answer:
    """Stream stamped chunks when asked to count; else change every place of the file, and end."""
    asked = max(at for at, one in enumerate(request.messages) if one["role"] == "user")
    if "NEW or CONTINUE" in str(request.messages[asked]):
        return text("CONTINUE")
    if "Count" in str(request.messages[asked]):
        pieces: list[Piece] = [event(chunk({"role": "assistant", "content": ""}))]
        for _ in range(CHUNKS):
            pieces += [Pause(GAP_SECONDS), lambda: event(chunk({"content": f"@{time.time():.6f}@ "}))]
        return Answer((*pieces, event(chunk({}, finish="stop")), DONE))
    results = sum(1 for one in request.messages[asked:] if one["role"] == "tool")
    if results == 0:
        return tools(call("read_file", path="steps.py"))
    if results == 1:
        change = [(f"step_{number:02d} = 'old'", f"step_{number:02d} = 'new'") for number in range(HUNKS)]
        return tools(*(call("edit_file", path="steps.py", old=old, new=new) for old, new in change))
    return text("Done.")


async def _measure(parts: Any) -> list[Figure]:
    from playwright.async_api import async_playwright

    from panel import Panel
    from workbench import Workbench

    folder = Path(tempfile.mkdtemp(prefix="selfloop-bench-"))
    activation: list[float] = []
    ready: list[float] = []
    try:
        with ModelServer(_play) as model:
            server = await CodeServer.start(parts, "--disable-workspace-trust", env=environment_for(model))
            try:
                async with async_playwright() as driver:
                    browser = await driver.chromium.launch(**launch_options(parts, folder))
                    context = await browser.new_context(viewport={"width": 1400, "height": 850})
                    await context.add_init_script(WATCH)
                    project = make_repository(folder / "project", {"steps.py": FILE})
                    bench = await Workbench.open(server, context, project, folder)
                    panel = await Panel.open(bench)
                    for _ in range(ROUNDS):
                        # With the panel in view, it is restored and activated as on any start of the editor.
                        await bench.page.reload(wait_until="commit")
                        panel = await Panel.find(bench)
                        seen = 1000 * time.time()
                        ready.append(seen - await bench.page.evaluate("selfloopNotes.status"))
                        activation.append(await _activation(bench))
                    # VS Code writes a web view's page anew after it has loaded, so the script comes afterwards.
                    await panel.frame.evaluate(WATCH)
                    chunks = await _chunks(panel)
                    approvals = await _approvals(bench, panel)
                    await bench.close()
                    await browser.close()
            finally:
                await asyncio.to_thread(server.stop)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [
        _absolute("VS Code: activation", 50, activation),
        _absolute("VS Code: panel ready after activation", 1000, ready),
        _absolute("VS Code: chunk to pixels at 20 chunks/s", 50, chunks),
        _absolute("VS Code: approve a hunk to changed text", 150, approvals),
    ]


async def _activation(bench: Any) -> float:
    """Return what VS Code itself says that our activation cost."""
    await bench.command("Developer: Show Running Extensions")
    row = bench.page.locator(".runtime-extensions-editor .monaco-list-row", has_text="Selfloop").first
    await row.wait_for()
    found = re.search(r"Activation: (\d+)ms", (await row.inner_text()).replace("\u00a0", " "))
    assert found is not None, await row.inner_text()
    await bench.press("Escape")
    await row.wait_for(state="detached")
    return float(found[1])


async def _chunks(panel: Any) -> list[float]:
    await panel.send("Hello.")  # Loads the model library, which is no part of a stream.
    await panel.expect("Done.")
    await panel.idle()
    await panel.send("Count.")
    await _noted(panel, f"selfloopNotes.chunks.length >= {CHUNKS}")
    await panel.idle()
    notes = await panel.frame.evaluate("selfloopNotes.chunks")
    return [shown - sent for shown, sent in notes][10:]


async def _approvals(bench: Any, panel: Any) -> list[float]:
    await bench.open_file("steps.py")
    times = []
    for left in range(HUNKS, 0, -1):
        lens = bench.lens("^Approve$")
        await _count(bench, lens, left)
        done = len(await bench.page.evaluate("selfloopNotes.edits"))
        await lens.first.click()
        while len(edits := await bench.page.evaluate("selfloopNotes.edits")) == done:
            await asyncio.sleep(0.02)
        times.append(edits[-1][0] - await bench.page.evaluate("selfloopNotes.pressed"))
    return times[1:]


async def _noted(panel: Any, what: str) -> None:
    """Wait until the panel's notes say something. The page's own policy forbids Playwright's way of waiting."""
    from workbench import eventually

    await eventually(lambda: panel.frame.evaluate(what), what)


async def _count(bench: Any, lens: Any, wanted: int) -> None:
    from workbench import eventually

    async def there() -> bool:
        return await lens.count() == wanted

    await eventually(there, f"{wanted} lenses")
