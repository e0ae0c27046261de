"""Two trainings never write into one folder."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from udvla_ros.errors import ConfigError
from udvla_ros.training.claim import claimed

HOLD = "import sys; from pathlib import Path; from udvla_ros.training.claim import claimed\n"
HOLD += "with claimed(Path(sys.argv[1])): print('held', flush=True); sys.stdin.readline()"


def test_a_folder_that_another_process_holds_is_refused_until_that_process_is_gone(tmp_path):
    pipe = subprocess.PIPE
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=pipe, stdout=pipe, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=f"process {other.pid} is training there"), claimed(tmp_path):
        pass
    other.kill()
    other.wait()
    with claimed(tmp_path):
        assert (tmp_path / ".claim").read_text() == str(os.getpid())


def test_it_can_be_held_again(tmp_path):
    for _ in range(2):
        with claimed(tmp_path):
            pass
