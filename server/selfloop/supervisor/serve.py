"""The supervisor on this process's own stdin and stdout."""

from __future__ import annotations

import os
import sys

from selfloop.supervisor.claims import data_folder
from selfloop.supervisor.proxy import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def serve(command: Sequence[str]) -> int:
    """Serve the editor on stdin and stdout with workers that `command` starts; return the exit code.

    From here on fd 0 is empty and fd 1 is stderr, so that nothing but the supervisor's frames reaches the editor.
    """
    with open(os.path.join(os.path.dirname(__file__), "capabilities.json"), "rb") as file:
        capabilities = file.read().strip()
    try:
        stdin, stdout = os.dup(0), os.dup(1)
    except OSError:
        sys.stderr.write("selfloop serve speaks LSP on stdin and stdout, but they are closed; nothing was started.\n")
        return 2
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # Even stderr is closed.
        os.dup2(null, 2)
        os.dup2(null, 1)
    # The supervisor makes what it owns non-blocking, and with it what the editor or a terminal shares with us.
    blocking = [(descriptor, os.get_blocking(descriptor)) for descriptor in (stdin, stdout)]
    supervisor = Supervisor(
        command, capabilities=capabilities, data=data_folder(), stdin=os.dup(stdin), stdout=os.dup(stdout)
    )
    try:
        return supervisor.run()
    except KeyboardInterrupt:  # Before the editor's `initialize`; from then on it is an end like others.
        return 130
    finally:
        for descriptor, was in blocking:
            os.set_blocking(descriptor, was)
