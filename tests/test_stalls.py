"""A stall is seen and told."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from stalls import StallWatch


def test_a_process_that_was_stopped_tells_for_how_long():
    program = textwrap.dedent("""
        import sys, time
        from stalls import StallWatch
        watch = StallWatch()
        print("watching", flush=True)
        sys.stdin.readline()
        watch.end()
        print(watch.worst)
    """)
    command, here = [sys.executable, "-c", program], Path(__file__).parent
    process = subprocess.Popen(command, cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "watching\n"
    process.send_signal(signal.SIGSTOP)
    try:
        process.wait(0.3)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGCONT)
    said, _ = process.communicate("\n", 30.0)
    assert float(said) > 0.25


def test_what_is_told_has_the_numbers():
    assert "ms" in StallWatch().end()
