"""``udvla bench gpu`` on a CPU, with the smallest model: every section runs, and what fails is said."""

from __future__ import annotations

import json

import pytest
import tiny

from udvla_ros.cli import main as cli
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.policy.policy import Policy
from udvla_ros.proving.bench import gpu_bench


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Tiny bundles in place of the large ones; and a folder of one."""
    monkeypatch.setattr(gpu_bench, "random_bundle", lambda *_, **__: tiny.bundle())
    monkeypatch.setattr(gpu_bench, "STEPS", (2,))
    return [
        "bench",
        "gpu",
        "--device",
        "cpu",
        "--bundle",
        str(tiny.saved(tmp_path / "bundle")),
        "--repeat",
        "2",
        "--json",
        str(tmp_path / "gpu.json"),
    ]


def test_every_section_runs_and_the_page_shows_it(small, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_bench, "WAYS", {k: v for k, v in gpu_bench.WAYS.items() if k != "compiled"})
    assert cli.main(small) == 0
    values = json.loads((tmp_path / "gpu.json").read_text())
    assert values["tokens"]["jd3p"] == {"chunks": 2, "same": 2}
    assert set(values["decoding"]) == {"eager, 2 steps", "graphs, 2 steps"}
    assert values["decoding"]["eager, 2 steps"]["ms"]["denoise"]["p50"] > 0
    assert values["rivals"]["times autoregressive"] > 0
    assert set(values["rounded"]) == {"int8", "fp8"}
    assert {"float32", "bfloat16", "int8", "fp8"} <= set(values["products"]["tflops"])
    assert values["training"]["ms"] > 0
    text = (tmp_path / "gpu.md").read_text()
    assert all(gpu_bench.SECTIONS[name].__doc__.splitlines()[0] in text for name in gpu_bench.SECTIONS)
    assert "| eager, 2 steps |" in text


def test_a_failing_section_leaves_the_others_their_turn(small, tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setattr(gpu_bench, "SECTIONS", {"tokens": gpu_bench.tokens, "images": broken, "waits": gpu_bench.waits})
    broken.__doc__ = "Images."
    assert cli.main(small) == 1
    values = json.loads((tmp_path / "gpu.json").read_text())
    assert values["images"] == {"failed": "RuntimeError: no kernel image is available"}
    assert "skipped" in values["waits"]
    assert "images: 0 s, failed: RuntimeError" in capsys.readouterr().out


def test_other_tokens_and_no_time_are_said(small, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_bench, "_equal", lambda a, b: False)
    monkeypatch.setattr(gpu_bench, "SECTIONS", {"tokens": gpu_bench.tokens})
    assert cli.main(small) == 1
    assert cli.main([*small, "--minutes", "0"]) == 0
    assert "0 minutes were used up" in json.loads((tmp_path / "gpu.json").read_text())["tokens"]["skipped"]


def test_without_a_gpu_it_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main(["bench", "gpu"]) == 2
    assert "no CUDA GPU is visible" in capsys.readouterr().err


def test_rounded_weights_get_a_backbone_of_their_own():
    bench = gpu_bench.Bench(tiny.backbone().device, "")
    bench._large = bundle = tiny.bundle()
    policy = bench.large(gpu_bench.RuntimeOptions(weights="fp8"), fresh=True)
    assert isinstance(policy, Policy)
    assert isinstance(bundle, Bundle)
    assert policy.bundle.backbone.decoder.rounded
    assert bench._large is None
