"""Starts the real supervisor, as `boot.py` does, with the stand-in for a worker."""

import os
import sys

sys.path.append(sys.argv[1])
from selfloop.supervisor.serve import serve

sys.exit(serve([sys.executable, "-I", os.path.join(os.path.dirname(os.path.abspath(__file__)), "standin_worker.py")]))
