"""Worker processes end with the one that started them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from udvla_ros.workers import worker_pool

PARENT = """
import os, sys, time
sys.path.insert(0, {folder!r})
from test_workers import answer, remember
from udvla_ros.workers import worker_pool
if __name__ == "__main__":
    with worker_pool(2, remember, "a") as pool:
        print(*{{pid for pid, _ in pool.map(answer, range(8), chunksize=1)}}, flush=True)
        time.sleep(600)
"""
known: list[str] = []


def remember(word: str) -> None:
    known.append(word)


def answer(number: int) -> tuple[int, str]:
    return os.getpid(), f"{known[0]}{number}"


def test_each_worker_is_started_and_answers():
    with worker_pool(1, remember, "a") as pool:
        assert [word for _, word in pool.map(answer, range(3))] == ["a0", "a1", "a2"]


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(folder=str(Path(__file__).parent)))
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    ends = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
    try:
        assert ends
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        for end in ends:  # a descriptor of a process can be read once it has ended
            assert select.select([end], [], [], 10.0)[0], "a worker lives on"
    finally:
        for end in ends:
            if not select.select([end], [], [], 0)[0]:
                signal.pidfd_send_signal(end, signal.SIGKILL)
            os.close(end)
