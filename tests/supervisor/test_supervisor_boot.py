"""The real `boot.py` and `worker_boot.py`, in a copy of the package whose worker is the stand-in."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from supervisor_client import HERE, gone

import selfloop.supervisor

WORKER = f"""
import os, runpy, sys

def main(reader, writer):
    print("a library that prints", flush=True)
    os.system("echo a child that prints; cat > /dev/null")
    assert not any(os.get_inheritable(fd) for fd in range(3, 20) if os.path.exists(f"/proc/self/fd/{{fd}}"))
    os.dup2(reader, 0)
    os.dup2(writer, 1)
    sys.argv = ["worker", "--without-death-signal"]
    runpy.run_path({str(HERE / "standin_worker.py")!r}, run_name="__main__")
"""


@pytest.fixture
def package(tmp_path):
    """A folder like site-packages; returns the arguments that start its `boot.py`."""
    place = tmp_path / "site" / "selfloop"
    shutil.copytree(Path(selfloop.supervisor.__file__).parent, place / "supervisor")
    (place / "__init__.py").touch()
    (place / "lsp").mkdir()
    (place / "lsp" / "__init__.py").touch()
    (place / "lsp" / "worker.py").write_text(WORKER)
    return [str(place / "supervisor" / "boot.py")]


def test_nothing_in_the_workspace_or_the_environment_is_imported(start, package, folder):
    trap = "raise SystemExit('the workspace was imported')"
    for name in ("json", "os", "select", "sitecustomize", "usercustomize", "ctypes", "threading", "selfloop"):
        (folder / f"{name}.py").write_text(trap)
    client = start(package, cwd=folder, PYTHONPATH=str(folder), PYTHONSTARTUP=str(folder / "json.py"))
    client.initialize(folder)
    assert client.worker()
    assert client.end() == 0


def test_what_a_worker_or_its_children_print_does_not_reach_the_editor(start, package, folder, home):
    client = start(package)
    client.initialize(folder)
    client.worker()
    client.nothing_more()
    client.end()
    log = (home / "data" / "logs" / "selfloop.log").read_text()
    assert "a library that prints" in log
    assert "a child that prints" in log


@pytest.mark.parametrize("stuck", [False, True])
def test_a_killed_supervisor_takes_the_worker_and_all_that_it_started_with_it(start, package, folder, stuck):
    client = start(package)
    client.initialize(folder)
    child = client.call("selfloop/gate/read", {"do": "orphan"})
    pid = client.worker()
    if stuck:
        client.ask("selfloop/gate/read", {"do": "sleep", "seconds": 60})
        time.sleep(0.5)
    os.kill(client.process.pid, signal.SIGKILL)
    assert gone(pid, 2)
    assert gone(child, 1)
