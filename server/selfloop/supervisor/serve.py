"""The supervisor on this process's own stdin and stdout."""

from __future__ import annotations

import os
import sys

from selfloop.supervisor.claims import data_folder
from selfloop.supervisor.generations import OURS
from selfloop.supervisor.proxy import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def serve(command: Sequence[str], own: str | None = None) -> int:
    """Serve the editor on stdin and stdout with workers that `command` starts; return the exit code.

    `own` is a checkout of Selfloop that stands for the installed package; None: none does.

    From here on fd 0 is empty and fd 1 is stderr, so that nothing but the supervisor's frames reaches the editor.
    """
    package = OURS if own is None else os.path.join(own, "server", "selfloop")
    try:
        with open(os.path.join(package, "supervisor", "capabilities.json"), "rb") as file:
            capabilities = file.read().strip()
    except OSError:
        sys.stderr.write(f"{own} is no checkout of Selfloop, so nothing was started; name the folder of one.\n")
        return 2
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
        command,
        capabilities=capabilities,
        data=data_folder(),
        stdin=os.dup(stdin),
        stdout=os.dup(stdout),
        package=package,
    )
    try:
        return supervisor.run()
    except KeyboardInterrupt:  # Before the editor's `initialize`; from then on it is an end like others.
        return 130
    finally:
        for descriptor, was in blocking:
            os.set_blocking(descriptor, was)
