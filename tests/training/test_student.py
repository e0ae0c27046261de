"""`udvla distill` as a whole, on the smallest of everything."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny

from udvla_ros.cli.main import main
from udvla_ros.model.checkpoint import Bundle


def arguments(folder, **changes) -> list[str]:
    values = {
        "teacher": folder / "teacher", "data": folder / "episodes", "tokens": folder / "tokens.npz",
        "output": folder / "student", "frames": 20, "teacher-steps": 5, "student-steps": 2, "steps": 4, "batch": 4,
        "threads": 1, **changes,
    }  # fmt: skip
    return ["distill", *(word for name, value in values.items() for word in (f"--{name}", str(value)))]


@pytest.fixture
def folder(tmp_path):
    tiny.saved(tmp_path / "teacher")
    tiny.sequences().shard.save(tmp_path / "tokens.npz")
    return tmp_path


def test_a_bundle_comes_out_that_decodes_in_few_steps(folder):
    assert main(arguments(folder)) == 0
    student = Bundle.load(folder / "student" / "bundle")
    teacher = Bundle.load(folder / "teacher")
    assert student.config.decoding["steps"] == 2
    assert student.config.name.endswith("-2step")
    assert student.hash != teacher.hash
    rows = [json.loads(line) for line in (folder / "student" / "log.jsonl").read_text().splitlines()]
    assert np.isfinite(rows[-1]["travel_mm_mean"])
    assert teacher.hash[:12] in (folder / "student" / "bundle" / "README.md").read_text()


def test_run_again_it_is_done(folder, capsys):
    assert main(arguments(folder)) == 0
    assert main(arguments(folder)) == 0
    assert "resumed at step 4 of 4" in capsys.readouterr().out


def test_another_teacher_is_refused_in_one_line(folder, capsys):
    assert main(arguments(folder)) == 0
    tiny.saved(folder / "teacher", seed=3)
    assert main(arguments(folder)) == 2
    assert "another teacher" in capsys.readouterr().err
