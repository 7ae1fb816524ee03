"""How many threads work. What they compute is the kernels' tests' matter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TASKS = Path("/proc/self/task")  # one entry a thread
pytestmark = pytest.mark.skipif(not TASKS.is_dir(), reason="no /proc to count threads in")

COUNT = """
import os, signal, sys, threading
import numpy as np
from edgeseg import _core

def hired():
    return len(os.listdir("/proc/self/task")) - at_first

def call(threads, rows=64):
    frame, labels = np.zeros((rows, 8, 3), np.uint8), np.zeros((rows, 8), np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    _core.overlay(frame, labels, palette, frame, alpha=9, threads=threads)
    return hired()

at_first = len(os.listdir("/proc/self/task"))
"""


def counted(code: str) -> str:
    """What the code prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COUNT + code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # NumPy's threads end when it forks
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_caller_works_beside_one_thread_less_than_asked_for() -> None:
    # Threads stay for the next call; rows that one thread can have are not spread over more.
    assert counted("print(call(1), call(3), call(2), call(3), call(5), call(9, rows=2))") == (
        "0 2 2 2 4 4"
    )


def test_threads_are_not_hired_again_and_again() -> None:
    assert counted("print({call(4) for _ in range(50)})") == "{3}"


def test_a_forked_child_hires_threads_of_its_own() -> None:
    """Its parent's are not there: it would do all the work alone."""
    code = """
call(4)
child = os.fork()
if child == 0:
    signal.alarm(60)
    at_first = len(os.listdir("/proc/self/task"))
    os._exit(10 * call(4) + call(1))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), call(4))
"""
    assert counted(code) == "33 3"
