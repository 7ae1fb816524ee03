"""Kernels at the edges of a process: out of memory, and its end while they run."""

from __future__ import annotations

import subprocess
import sys

import pytest

OUT_OF_MEMORY = """
import resource
import numpy as np
from edgeseg import _core
wide = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 254, 40, 4_000_000), (0,) * 4)
labels = np.empty((1, 40, 8), np.uint8)
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
try:
    _core.upsample_argmax(wide, labels, align_corners=False, threads={threads})
except MemoryError:
    print("MemoryError")
small, labels = np.ones((1, 2, 4, 4), np.float32), np.empty((1, 64, 64), np.uint8)
_core.upsample_argmax(small, labels, align_corners=False, threads={threads})
"""

DAEMON = """
import threading, time
import numpy as np
from edgeseg import _core
logits = np.zeros((1, 19, 64, 128), np.float32)
def loop():
    labels = np.empty((1, 512, 1024), np.uint8)
    while True:
        _core.upsample_argmax(logits, labels, align_corners=True, threads=2)
for _ in range(2):
    threading.Thread(target=loop, daemon=True).start()
time.sleep(0.2)
"""


@pytest.mark.parametrize("threads", [1, 4])
def test_out_of_memory_is_an_exception(threads: int) -> None:
    """In whichever thread it happens; the pool works on."""
    code = OUT_OF_MEMORY.format(threads=threads)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "MemoryError\n"


def test_a_daemon_thread_may_be_in_a_kernel_when_the_interpreter_ends() -> None:
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", DAEMON], capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
