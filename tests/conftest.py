"""What holds for all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from hypothesis import settings

# No test asserts a time, and slow machines are slow.
settings.register_profile("tests", settings(), deadline=None)
settings.load_profile("tests")

# Whoever starts tests in the background of a shell has them ignore Ctrl-C, and programs that they start as well; some
# tests send it to such a program.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Without a GPU Triton's kernels are interpreted, which it decides when it is imported.
if not any(Path("/dev").glob("nvidia[0-9]*")):
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Processes that share the tests share the cores already.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
