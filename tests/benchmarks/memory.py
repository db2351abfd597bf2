"""What the server holds in memory while nothing happens: supervisor and worker together, against bare pygls."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.measure import BARE, BARE_NAME, OURS, Client, Figure, place, ratio
from model_server import ModelServer, text

SETTLE_SECONDS = 3.0
ROUNDS = 3


def _resident_mib(pid: int) -> float:
    """Return the proportional set size of a process and its children: shared pages count once."""
    total = 0.0
    for process in (pid, *_children(pid)):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(float(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
    return total


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_children(int(child))]
    return found


def run() -> list[Figure]:
    """Measure idle, then print what a first turn leaves (it loads the model library)."""
    ours, bare = [], []
    for _ in range(ROUNDS):
        with place() as (folder, env):
            for command, rows, variables in ((BARE, bare, None), (OURS, ours, env)):
                client = Client(command, variables)
                client.initialize(folder)
                client.initialized()
                if rows is ours:
                    client.request("selfloop/session/list", {})
                time.sleep(SETTLE_SECONDS)
                rows.append(_resident_mib(client.process.pid))
                client.stop()
    with place() as (folder, env), ModelServer([text("Hello.")] * 4) as model:
        client = Client(OURS, {**env, "INFERENCE_BASE_URL": model.url, "MODEL_NAME": "scripted"})
        client.initialize(folder)
        client.initialized()
        session = client.request("selfloop/session/new", {})["sessionId"]
        client.request("selfloop/session/prompt", {"sessionId": session, "text": "Hello"})
        while b'"idle"' not in client.read():
            pass
        print(f"     (after a first turn: {_resident_mib(client.process.pid):.0f} MiB, the model library included)")
        client.stop()
    return [ratio("memory of both processes, idle", 1.75, ours, bare, BARE_NAME, "MiB")]
