"""Builds the folder tree that path_confinement.jsonl is about: `build(root)` returns the workspace, root/ws.

The secret that must never be read is root/outside/secret; `{OUTSIDE}` in a case stands for root/outside.
"""

import os
import pathlib
import socket


def build(root: pathlib.Path) -> pathlib.Path:
    ws, outside = root / "ws", root / "outside"
    for folder in (ws / "src" / "d", ws / ".git" / "hooks", ws / "bigdir", root / "ws-evil", outside):
        folder.mkdir(parents=True)
    for path, text in {
        outside / "secret": "SECRET",
        root / "ws-evil" / "f": "SECRET",
        ws / "src" / "a.py": "ok",
        ws / ".env": "K=1",
        ws / ".git" / "config": "x",
        ws / "a b.txt": "ok",
        ws / "日本.txt": "ok",
        ws / "noperm": "x",
    }.items():
        path.write_text(text, encoding="utf-8")
    links = {
        "l_file_rel": "../outside/secret",
        "l_file_abs": str(outside / "secret"),
        "l_dir": "../outside",
        "l_parent": "..",
        "l_root": "/",
        "l_chain1": "l_chain2",
        "l_chain2": "l_chain3",
        "l_chain3": "../outside/secret",
        "l_dangling_out": "../outside/new_file",
        "l_dangling_deep": "../outside/newdir/x",
        "loop_a": "loop_b",
        "loop_b": "loop_a",
        "l_inside_dir": "src",
        "l_inside_file": "src/a.py",
        "l_procroot": "/proc/self/root",
        "l_proccwd": "/proc/self/cwd",
        "l_devnull": "/dev/null",
        "l_fd0": "/dev/fd/0",
        "l_git": ".git",
        "l_self_via_parent": "../ws",
        "l_abs_self": str(ws),
        "l_to_hook": ".git/hooks/pre-commit",
    }
    for name, target in links.items():
        (ws / name).symlink_to(target)
    os.link(outside / "secret", ws / "hardlink_out")
    os.mkfifo(ws / "fifo")
    here = os.open(".", os.O_RDONLY)
    try:  # a short relative name: socket paths are limited to 107 bytes
        os.chdir(ws)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("sock")
    finally:
        os.fchdir(here)
        os.close(here)
    return ws
