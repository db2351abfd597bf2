"""Runs a program behind an audit hook: `python -I audited.py FD PROGRAM ARGUMENTS…`.

The hook is set before anything of the program is imported, and cannot be taken away (PEP 578). What it hears goes as
lines of JSON to a descriptor that a process outside reads at once. A program that closes it is ended.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_HEARD = frozenset(
    {
        "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "subprocess.Popen",
        "os.posix_spawn", "os.exec", "os.fork", "os.forkpty", "os.system", "os.spawn", "os.startfile", "os.remove",
        "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod", "os.chown",
        "os.listdir", "os.scandir", "os.putenv", "os.unsetenv", "shutil.rmtree", "shutil.move", "shutil.copyfile",
        "ctypes.dlopen", "sys.addaudithook", "sys.settrace", "sys.setprofile", "urllib.Request", "ftplib.connect",
        "smtplib.connect", "webbrowser.open", "os.kill", "os.killpg", "signal.pthread_kill", "mmap.__new__",
    }
)  # fmt: skip


def main() -> None:
    """Set the hook, then become the program."""
    telling = int(sys.argv[1])
    program = sys.argv[2]
    os.set_inheritable(telling, False)
    told: set[tuple[str, str]] = set()

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(path, int):
                return
            kind = "write" if isinstance(flags, int) and flags & _WRITING else "read"
            detail = _text(path)
        elif event in _HEARD:
            kind = event
            detail = _detail(event, args)
        else:
            return
        if (kind, detail) in told:
            return
        told.add((kind, detail))
        try:
            os.write(telling, (json.dumps([kind, detail]) + "\n").encode())
        except OSError:
            os._exit(97)

    sys.addaudithook(hook)
    sys.argv = sys.argv[2:]
    runpy.run_path(program, run_name="__main__")


def _detail(event: str, args: tuple[Any, ...]) -> str:
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        return _text(args[1]) if isinstance(args[1], str | bytes) else repr(args[1])
    if event == "subprocess.Popen":
        return " ".join(_text(word) for word in [args[0], *list(args[1])[1:]][:8])
    if event in ("os.posix_spawn", "os.exec"):
        return " ".join([_text(args[0]), *(_text(word) for word in list(args[1])[1:8])])
    return " ".join(_text(value) for value in args[:2])


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


if __name__ == "__main__":
    main()
