"""How long an editor waits: from starting the process to the answer of `initialize`, and to the first real answer."""

from __future__ import annotations

import time

from benchmarks.measure import BARE, BARE_NAME, OURS, Client, Figure, place, ratio

ROUNDS = 12


def run() -> list[Figure]:
    """Measure, ours and the baseline in turn."""
    ours, first, bare = [], [], []
    with place() as (folder, env):
        for _ in range(ROUNDS):
            client = Client(BARE)
            client.initialize(folder)
            bare.append(1000 * (time.perf_counter() - client.started))
            client.stop()

            client = Client(OURS, env)
            client.initialize(folder)
            ours.append(1000 * (time.perf_counter() - client.started))
            client.initialized()
            client.request("selfloop/session/list", {})
            first.append(1000 * (time.perf_counter() - client.started))
            client.stop()
    return [
        ratio("answer to initialize", 0.15, ours[1:], bare[1:], BARE_NAME),
        ratio("first selfloop/* answer with the worker's state", 1.25, first[1:], bare[1:], BARE_NAME),
    ]
