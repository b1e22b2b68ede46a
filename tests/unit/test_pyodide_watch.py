"""What the watch of a sandbox sees of a process, here of this one."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from rlm_kernel.repl.pyodide.watch import Limits, Watch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no such sandbox on Windows")


def test_within_its_limits_nothing_is_said():
    assert Watch(os.getpid(), Limits(memory_mib=100_000, threads=1000)).passed(busy=True) == ""


def test_memory_is_told_with_both_numbers():
    assert "MiB of memory, more than the 1 allowed" in Watch(os.getpid(), Limits(memory_mib=1)).passed(
        busy=True
    )


def test_threads_are_counted():
    leave = threading.Event()
    threads = [threading.Thread(target=leave.wait) for _ in range(5)]
    for each in threads:
        each.start()
    try:
        watch = Watch(os.getpid(), Limits(memory_mib=100_000, threads=5))
        assert "threads, more than the 5 allowed" in watch.passed(busy=True)
    finally:
        leave.set()
        for each in threads:
            each.join()


def test_computing_counts_between_cells_only():
    watch = Watch(os.getpid(), Limits(memory_mib=100_000, threads=1000, idle_cpu_seconds=0.05))
    assert watch.passed(busy=True) == ""
    _compute()
    assert watch.passed(busy=True) == ""
    _compute()
    assert "after its cell had ended" in watch.passed(busy=False)


def _compute():
    began = os.times().user
    while os.times().user - began < 0.1:
        sum(range(1000))


def test_a_process_that_is_gone_takes_nothing():
    assert Watch(2**22 + 1, Limits(memory_mib=1)).passed(busy=True) == ""


def test_the_operator_sets_memory(monkeypatch):
    monkeypatch.setenv("RLM_PYODIDE_HEAP_MIB", "256")
    monkeypatch.setenv("RLM_PYODIDE_MEMORY_MIB", "none")
    assert Limits.of_environment() == Limits(heap_mib=256)
