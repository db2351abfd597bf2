"""What the supervisor starts as a worker, by `python -I worker_boot.py`: make the process safe, then import the rest.

Its arguments, if there are any, are the folder that the package is imported from, which is a generation's, and where
that one's bytecode is kept. This file itself is always the installed one.

In this order: the frames' descriptors move away from fd 0 and 1, so that no library can read or write between them; the
locks that were inherited stay in this process alone; and a thread sees to it that the worker and all it has started end
with the supervisor, even one that is killed. The kernel's own way to do that (prctl, PR_SET_PDEATHSIG) would not leave
the worker the moment in which it ends its commands in good order.
"""

from __future__ import annotations

import gc
import os
import select
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

GRACE_SECONDS = 1.0
"""How long the worker has to end by itself once the supervisor is gone."""
_SIGKILL = 9


def main() -> None:
    """Run a worker."""
    reader, writer = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    for name in os.listdir("/dev/fd"):
        try:
            if int(name) > 2:
                os.set_inheritable(int(name), False)
        except OSError:  # The listing's own descriptor is closed by now.
            continue
    threading.Thread(target=_end_with_supervisor, args=(reader,), daemon=True).start()
    installed = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if len(sys.argv) > 2:
        _keep_bytecode(sys.argv[1], sys.argv[2])
    _find_package(sys.argv[1] if len(sys.argv) > 1 else installed)
    # Most of what is imported stays, so the collector looks at it less often; not at all would cost 10 MiB for good.
    gc.set_threshold(5_000, 20, 20)
    from selfloop.lsp.worker import main as work

    try:
        work(reader, writer)
    finally:
        _end_commands()
    # Everything is written; threads that are still at work, such as one that imports a library, are not waited for.
    sys.stderr.flush()
    os._exit(0)


def _keep_bytecode(folder: str, place: str) -> None:
    """Keep the bytecode of what is imported from `folder` in `place`, so that the folder stays as it is.

    Not by `-X pycache_prefix`, which would have every library compiled anew for each generation.
    """
    from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader

    lock = threading.RLock()

    class Loader(SourceFileLoader):
        def get_code(self, fullname: str) -> CodeType | None:
            with lock:
                before, sys.pycache_prefix = sys.pycache_prefix, place
                try:
                    return super().get_code(fullname)
                finally:
                    sys.pycache_prefix = before

    def hook(path: str) -> FileFinder:
        if path != folder and not path.startswith(folder + os.sep):
            raise ImportError(path)
        return FileFinder(path, (Loader, SOURCE_SUFFIXES))

    sys.path_hooks.insert(0, hook)


def _find_package(folder: str) -> None:
    """Make `selfloop` the package in `folder`; whatever else lies there yields to every other."""
    sys.path.insert(0, folder)
    import selfloop

    if os.path.dirname(os.path.dirname(str(selfloop.__file__))) != folder:
        sys.exit(f"selfloop was found in {selfloop.__file__} and not in {folder}, so no worker was started")
    del sys.path[0]
    sys.path.append(folder)


def _end_with_supervisor(reader: int) -> None:
    """Wait until the other end of the pipe is closed, which only the supervisor's end does; then end everything."""
    poll = select.poll()
    poll.register(reader, 0)  # No event is asked for; a hang-up is always told.
    while not poll.poll():
        pass
    time.sleep(GRACE_SECONDS)
    _end_commands()
    os.kill(os.getpid(), _SIGKILL)


def _end_commands() -> None:
    """Kill every process below this one."""
    for _ in range(20):
        started = _descendants(os.getpid())
        for pid in started:
            try:
                os.kill(pid, _SIGKILL)
            except ProcessLookupError:
                continue
        if not started:
            return
        time.sleep(0.01)


def _descendants(pid: int) -> list[int]:
    """Return every process below this one that still runs; none where the system has no /proc."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                children = [int(child) for child in file.read().split()]
            for child in children:
                with open(f"/proc/{child}/stat", encoding="utf-8", errors="replace") as file:
                    zombie = file.read().rpartition(")")[2].split()[0] == "Z"
                found += [*([] if zombie else [child]), *_descendants(child)]
    except OSError:  # It has ended meanwhile.
        return found
    return found


if __name__ == "__main__":
    main()
