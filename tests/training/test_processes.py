"""Two processes learn what one does: the same batches, the same losses, the same weights."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

from udvla_ros.training.loop import PolicyTrainer, PolicyTraining

CONFIG = PolicyTraining(
    steps=20, stage1_steps=4, batch=6, copies=1, blind_copies=1, warmup=2, lr=3e-3, ema=0.9, validate_every=99,
    optimizer="adamw", backbone=tiny.BACKBONE,
)  # fmt: skip


def train(folder: Path) -> None:
    """Train to the end in this process, as one of however many there are."""
    torch.manual_seed(0)
    run = PolicyTrainer(tiny.backbone(initializer_range=0.05).train(), tiny.sequences(), CONFIG, folder)
    run.run()
    run.accelerator.wait_for_everyone()
    if run.accelerator.num_processes > 1:
        torch.distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def launched(folder: Path, processes: int) -> tuple[list[dict], dict]:
    """Run ``train`` as ``accelerate launch --cpu`` would start it; return the log and the checkpoint."""
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(processes),
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_ip", "127.0.0.1", "--main_process_port", str(free_port()), __file__, str(folder),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(tiny.__file__).parent), "OMP_NUM_THREADS": "1"}
    environment |= {"GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return log, torch.load(folder / "checkpoint.pt", weights_only=True)


@pytest.mark.timeout(300)
def test_two_processes_give_the_loss_curve_of_one(tmp_path):
    train(tmp_path / "one")
    alone = [json.loads(line) for line in (tmp_path / "one" / "log.jsonl").read_text().splitlines()]
    weights = torch.load(tmp_path / "one" / "checkpoint.pt", weights_only=True)["model"]
    together, state = launched(tmp_path / "two", 2)
    assert len(together) == len(alone) > 0
    for one, two in zip(alone, together, strict=True):
        assert two["step"] == one["step"]
        for loss in ("visual", "action"):
            assert two[loss] == pytest.approx(one[loss], abs=2e-4)
    for name, value in weights.items():
        torch.testing.assert_close(state["model"][name], value, atol=2e-4, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_the_test_would_see_another_batch(tmp_path):
    curves = []
    for name, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(0)
        config = dataclasses.replace(CONFIG, seed=seed)
        run = PolicyTrainer(tiny.backbone(initializer_range=0.05).train(), tiny.sequences(), config, tmp_path / name)
        run.run()
        curves.append(json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[0])["action"])
    assert abs(curves[0] - curves[1]) > 2e-3


if __name__ == "__main__":
    train(Path(sys.argv[1]))
