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

from udvla_ros.errors import ConfigError
from udvla_ros.training.loop import PolicyTrainer, PolicyTraining

CONFIG = PolicyTraining(
    steps=20, stage1_steps=4, batch=6, copies=1, blind_copies=1, warmup=2, lr=3e-3, ema=0.9, validate_every=99,
    optimizer="adamw", backbone=tiny.BACKBONE,
)  # fmt: skip


def train(folder: Path, sharded: bool = False, half_way: bool = False) -> None:
    """Train to the end in this process, as one of however many there are; or half of it, to go on later."""
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, sharded=sharded)
    run = PolicyTrainer(tiny.backbone(initializer_range=0.05).train(), tiny.sequences(), config, folder)
    if half_way:
        for _ in range(config.steps // 2):
            run.train_step()
        run.save()
    else:
        run.resume()
        run.run()
    run.accelerator.wait_for_everyone()
    (folder / "processes").write_text(str(run.accelerator.num_processes))
    if run.accelerator.num_processes > 1:
        torch.distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def launched(folder: Path, processes: int, *words: str) -> tuple[list[dict], dict]:
    """Run ``train`` in several processes; return the log and the checkpoint."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes),
        "--master_addr", "127.0.0.1", "--master_port", str(free_port()), __file__, str(folder), *words,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(tiny.__file__).parent), "OMP_NUM_THREADS": "1"}
    environment |= {"GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder / "processes").read_text() == str(processes)
    path = folder / "log.jsonl"
    log = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return log, torch.load(folder / "checkpoint.pt", weights_only=True)


def same(together: list[dict], state: dict, folder: Path) -> None:
    """Check a log and a checkpoint against those of one process alone, to the rounding of sums."""
    alone = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert len(together) == len(alone) > 0
    for one, two in zip(alone, together, strict=True):
        assert two["step"] == one["step"]
        for loss in ("visual", "action"):
            assert two[loss] == pytest.approx(one[loss], abs=2e-4)
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)
    for part in ("model", "average"):
        for name, value in kept[part].items():
            torch.testing.assert_close(state[part][name], value, atol=2e-4, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.timeout(300)
def test_two_processes_give_the_loss_curve_of_one(tmp_path):
    train(tmp_path / "one")
    same(*launched(tmp_path / "two", 2), tmp_path / "one")


@pytest.mark.timeout(300)
def test_sharded_over_two_processes_and_resumed_it_is_still_the_run_of_one(tmp_path):
    train(tmp_path / "one", half_way=True)
    train(tmp_path / "one")
    launched(tmp_path / "two", 2, "sharded", "half_way")
    same(*launched(tmp_path / "two", 2, "sharded"), tmp_path / "one")


def test_one_process_alone_cannot_be_sharded(tmp_path):
    with pytest.raises(ConfigError, match="several processes"):
        PolicyTrainer(tiny.backbone(), tiny.sequences(), dataclasses.replace(CONFIG, sharded=True), tmp_path)


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
    train(Path(sys.argv[1]), "sharded" in sys.argv, "half_way" in sys.argv)
