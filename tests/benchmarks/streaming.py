"""From a chunk on the model's wire to the update at the client, against a raw relay of the same stream.

The model stamps each chunk with the moment at which it was sent; both readers compare it with their own clock, which is
the machine's.
"""

from __future__ import annotations

import http.client
import json
import platform
import re
import time
from urllib.parse import urlsplit

from benchmarks.measure import OURS, Client, Figure, place, quantile
from model_server import DONE, Answer, ModelServer, Pause, Piece, Request, chunk, event

CHUNKS = 400
GAP_SECONDS = 0.004
STAMP = re.compile(rb"@(\d+\.\d+)@")


def _stamped() -> bytes:
    return event(chunk({"content": f"@{time.perf_counter():.7f}@"}))


def _answer(request: Request) -> Answer:
    pieces: list[Piece] = []
    for _ in range(CHUNKS):
        pieces += [Pause(GAP_SECONDS), _stamped]
    return Answer((*pieces, event(chunk({}, finish="stop")), DONE))


def run() -> list[Figure]:
    """Measure the relay and ours in turn."""
    with ModelServer(_answer) as model:
        relay = _relay(model.url) + _relay(model.url)
        ours = _ours(model.url) + _ours(model.url)
    value = quantile(ours, 0.5) - quantile(relay, 0.5)
    name, against = "model chunk to update, above a raw relay", f"raw relay (http.client {platform.python_version()})"
    return [Figure(name, "ms", 1.0, value, tuple(ours), tuple(relay), against, difference=True)]


def _relay(url: str) -> list[float]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    connection.request(
        "POST", f"{parts.path}/chat/completions", json.dumps({"model": "m", "messages": [], "stream": True})
    )
    response = connection.getresponse()
    times = []
    while line := response.readline():
        found = STAMP.search(line)
        if found:
            times.append(1000 * (time.perf_counter() - float(found[1])))
    connection.close()
    return times[20:]


def _ours(url: str) -> list[float]:
    with place() as (folder, env):
        client = Client(OURS, {**env, "INFERENCE_BASE_URL": url, "MODEL_NAME": "m", "OPENROUTER_API_KEY": "k"})
        client.initialize(folder)
        client.initialized()
        session = client.request("selfloop/session/new", {})["sessionId"]
        client.request("selfloop/session/prompt", {"sessionId": session, "text": "go"})
        times = []
        while True:
            body = client.read()
            now = time.perf_counter()
            if b'"messageChunk"' in body:
                times += [1000 * (now - float(stamp)) for stamp in STAMP.findall(body)]
            elif b'"idle"' in body:
                break
        client.stop()
    return times[20:]
