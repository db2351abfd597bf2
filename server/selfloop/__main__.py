"""One program: `selfloop serve` is the language server, everything else the terminal.

`serve` stands where an editor waits, so it takes the short way: nothing is imported but what hands this process over to
the supervisor, which runs isolated (`-I -S`) from the installed package and from nowhere else.
"""

import os
import sys


def main() -> None:
    """Run `selfloop` with the process's arguments."""
    if len(sys.argv) > 1 and sys.argv[1] == "serve" and not {"-h", "--help"} & set(sys.argv[2:]):
        boot = os.path.join(os.path.dirname(os.path.abspath(__file__)), "supervisor", "boot.py")  # noqa: PTH100, PTH118, PTH120
        os.execv(sys.executable, [sys.executable, "-I", "-S", boot, *sys.argv[2:]])  # noqa: S606
    from selfloop.cli.main import main as terminal

    terminal()


if __name__ == "__main__":
    main()
