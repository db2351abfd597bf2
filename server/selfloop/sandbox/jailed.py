"""Programs that run inside the judge's jail and start others there. Standard library only; run as `-I -S jailed.py`.

    pair DRIVER … -- SERVER …      two programs, each one's stdout the other's stdin; ends as the driver does
    watched WORKER …               stands between the supervisor and its worker, and writes down all that passes

`pair` gives the driver the jail's own stdout as descriptor 3, for what it has to say. `watched` is what the supervisor
of a canary starts as its worker: the name of this file is then `worker_boot.py`. It starts the real one behind an
audit hook that is set before anything of the candidate is imported.
"""

# ruff: noqa: PTH100, PTH103, PTH118, PTH119, PTH120, PTH123 - pathlib is not imported where a worker's start is timed.

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import IO

OUT = "/judge/seen"
"""Where `watched` leaves what it saw, one set of files for each worker that was started."""
_PROPER = "worker_proper.py"
_PIECE = 1 << 16


def pair(arguments: list[str]) -> int:
    """Start both, wait for the driver, then end the server."""
    cut = arguments.index("--")
    os.dup2(1, 3)  # Before any pipe may get this number.
    to_server, from_driver = os.pipe()
    to_driver, from_server = os.pipe()
    with open("/judge/server.stderr", "wb") as complaint:
        server = subprocess.Popen(arguments[cut + 1 :], stdin=to_server, stdout=from_server, stderr=complaint)
    os.set_inheritable(3, True)
    driver = subprocess.Popen(arguments[:cut], stdin=to_driver, stdout=from_driver, pass_fds=(3,))
    for descriptor in (to_server, from_driver, to_driver, from_server):
        os.close(descriptor)
    code = driver.wait()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    return code


def watched(arguments: list[str]) -> int:
    """Start the worker, pass everything on, and write down what it said, on all three ways out."""
    os.makedirs(OUT, exist_ok=True)
    here = os.path.dirname(os.path.abspath(sys.argv[0]))
    hearing, telling = os.pipe()
    os.set_inheritable(telling, True)
    given = sys.orig_argv[1 : sys.orig_argv.index(sys.argv[0])]
    command = [sys.executable, *given, "/inside/audited.py", str(telling), os.path.join(here, _PROPER), *arguments]
    # The supervisor's locks are descriptors that the worker inherits, so nothing is closed.
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, close_fds=False, bufsize=0
    )
    os.close(telling)
    kept: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray(), "audit": bytearray()}
    if worker.stdin is None or worker.stdout is None or worker.stderr is None:
        return 70
    threading.Thread(target=_feed, args=(worker.stdin,), daemon=True).start()
    readers = [
        threading.Thread(target=_relay, args=(worker.stdout.fileno(), 1, kept["stdout"])),
        threading.Thread(target=_relay, args=(worker.stderr.fileno(), 2, kept["stderr"])),
        threading.Thread(target=_relay, args=(hearing, None, kept["audit"])),
    ]
    for reader in readers:
        reader.start()
    code = worker.wait()
    for reader in readers:
        reader.join(5)
    for name, data in kept.items():
        with open(os.path.join(OUT, f"{worker.pid}.{name}"), "wb") as file:
            file.write(data)
    with open(os.path.join(OUT, f"{worker.pid}.end"), "w", encoding="ascii") as file:
        json.dump({"code": code}, file)
    return code


def _feed(stdin: IO[bytes]) -> None:
    """Pass the supervisor's words on; when it is gone, so is the worker's pipe."""
    try:
        while piece := os.read(0, _PIECE):
            view = memoryview(piece)
            while view:
                view = view[os.write(stdin.fileno(), view) :]
    except OSError:
        return
    finally:
        stdin.close()


def _relay(source: int, target: int | None, kept: bytearray) -> None:
    try:
        while piece := os.read(source, _PIECE):
            kept += piece
            view = memoryview(piece)
            while view and target is not None:
                view = view[os.write(target, view) :]
    except OSError:
        return


if __name__ == "__main__":
    if os.path.basename(sys.argv[0]) == "worker_boot.py":
        sys.exit(watched(sys.argv[1:]))
    sys.exit(pair(sys.argv[2:]) if sys.argv[1:2] == ["pair"] else 64)
