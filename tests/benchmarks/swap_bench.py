"""What an editor sees of a swap at 100 requests a second: the longest wait for an answer; and how long a rollback is.

Baseline is the same load on the same server between two swaps. 10,000 requests over 20 swaps; one that is lost or
answered twice ends the run.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Figure, place, quantile
from generation_room import activate, adopt, generation_of, retitled, states
from lsp_client import LspClient
from processes import children, kill, worker_of

SWAPS, REQUESTS = 20, 10_000
INTERVAL_SECONDS = 0.01
ROLLBACKS = 5
SETTLE_SECONDS = 3.0
"""A worker that has just started clears up; both halves are measured after that."""


async def _asked(client: LspClient, times: list[float]) -> None:
    begin = time.perf_counter()
    await client.request("selfloop/status", {})
    times.append(1000 * (time.perf_counter() - begin))


async def _load(client: LspClient, goes_on: Callable[[int], bool]) -> list[float]:
    """Send 100 requests a second, whether or not the earlier ones are answered; return the waits in ms."""
    times: list[float] = []
    tasks: list[asyncio.Task[None]] = []
    due = time.perf_counter()
    while goes_on(len(tasks)):
        tasks.append(asyncio.create_task(_asked(client, times)))
        due += INTERVAL_SECONDS
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    await asyncio.gather(*tasks)
    if len(times) != len(tasks) or client.answers:
        raise RuntimeError(f"{len(tasks) - len(times)} requests were lost, {len(client.answers)} answered twice")
    return times


async def _swapped(client: LspClient, number: int) -> list[float]:
    """Swap under the load, and return the waits from before the swap to after it."""
    over = asyncio.Event()
    load = asyncio.create_task(_load(client, lambda _: not over.is_set()))
    await asyncio.sleep(0.2)
    told = await activate(client, number)
    await client.until(lambda: set(states(client, told)) & {"active", "refused"}, 90)
    await asyncio.sleep(0.5)
    over.set()
    if states(client, told)[-1] != "active":
        raise RuntimeError(f"the swap was refused: {client.of_type('generation')[-1]}")
    return await load


async def _measure(folder: Path, env: dict[str, str]) -> tuple[list[float], list[float], list[float]]:
    home = Path(env["SELFLOOP_HOME"])
    numbers = [await adopt(home, retitled(number)) for number in (1, 2)]
    client = await LspClient.start(env=env)
    await client.initialize(folder)
    client.open(folder / "a.py", "x = 1\n")
    for number in numbers:  # Their bytecode is there afterwards.
        await _swapped(client, number)
    longest: list[float] = []
    quiet: list[float] = []
    back: list[float] = []
    total = 0
    for swap in range(SWAPS):
        waits = await _swapped(client, numbers[swap % 2])
        longest.append(max(waits))
        await asyncio.sleep(SETTLE_SECONDS)
        calm = await _load(client, lambda count: count < REQUESTS // SWAPS // 2)
        quiet.append(max(calm))
        total += len(waits) + len(calm)
    await _load(client, lambda count: count < REQUESTS - total)
    for _ in range(ROLLBACKS):
        serving = await generation_of(client)
        told = await activate(client, next(number for number in numbers if number != serving))
        await client.until(lambda told=told: "active" in states(client, told), 90)
        while len(children(client.process.pid)) > 1:
            await asyncio.sleep(0.05)  # The old worker says its last words.
        begin = time.perf_counter()
        kill(worker_of(client.process.pid))
        if await generation_of(client) != 0:
            raise RuntimeError("the parent does not serve after a crash on probation")
        back.append(time.perf_counter() - begin)
    await client.close()
    return longest, quiet, back


def run() -> list[Figure]:
    """Measure swaps and rollbacks."""
    with place() as (folder, env):
        os.environ.update(env)
        longest, quiet, back = asyncio.run(_measure(folder, env))
        os.environ.pop("SELFLOOP_HOME")
    return [
        Figure(
            "longest wait in a swap, at 100 requests/s (p99)",
            "ms",
            20.0,
            quantile(longest, 0.99),
            tuple(longest),
            tuple(quiet),
            "no swap",
            difference=True,
        ),
        Figure(
            "a rollback after a crash, until the parent answers",
            "s",
            2.0,
            max(back),
            tuple(back),
            (0.0,),
            "nothing",
            difference=True,
        ),
    ]
