"""What a tiny request costs: through supervisor and worker, against bare pygls with nothing in between."""

from __future__ import annotations

import time

from benchmarks.measure import BARE, BARE_NAME, OURS, Client, Figure, place, ratio

WARM, COUNT, BLOCKS = 300, 400, 5


def _timed(client: Client, method: str, count: int) -> list[float]:
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        client.request(method, {})
        times.append(1000 * (time.perf_counter() - begin))
    return times


def run() -> list[Figure]:
    """Measure in alternating blocks, so that a slow spell of the machine hits both."""
    ours, bare = [], []
    with place() as (folder, env):
        ours_client, bare_client = Client(OURS, env), Client(BARE)
        for client in (ours_client, bare_client):
            client.initialize(folder)
            client.initialized()
        _timed(ours_client, "selfloop/session/list", WARM)
        _timed(bare_client, "bare/tiny", WARM)
        for _ in range(BLOCKS):
            ours += _timed(ours_client, "selfloop/session/list", COUNT)
            bare += _timed(bare_client, "bare/tiny", COUNT)
        ours_client.stop()
        bare_client.stop()
    return [ratio("a tiny request, through the supervisor", 0.5, ours, bare, f"{BARE_NAME}, direct")]
