"""What the editor starts, by `python -I -S boot.py`: the supervisor, from the installed package and nothing else.

Isolated mode keeps the workspace, the user's site folder and PYTHON* variables out; our own package's folder is put
behind the standard library, so that nothing there can stand in for it.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Serve the editor; return the exit code."""
    if os.name != "posix":
        sys.stderr.write("selfloop serve needs a POSIX system (Linux, macOS, WSL); nothing was started.\n")
        return 2
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path.append(os.path.dirname(os.path.dirname(here)))
    from selfloop.supervisor.serve import serve

    # `--self FOLDER`: a checkout is generation 0 in the place of the installed package, for those who develop it. The
    # supervisor itself is always the installed one.
    own = sys.argv[sys.argv.index("--self") + 1 :][:1] if "--self" in sys.argv else []
    if "--self" in sys.argv and not own:
        sys.stderr.write("--self needs the folder of a checkout; nothing was started.\n")
        return 2
    return serve([sys.executable, "-I", os.path.join(here, "worker_boot.py")], os.path.abspath(own[0]) if own else None)


if __name__ == "__main__":
    sys.exit(main())
