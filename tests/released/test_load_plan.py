"""What of a bundle fits where, reckoned from files that are as long as they say and otherwise empty."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from udvla_ros.cli import main as cli
from udvla_ros.errors import BundleError
from udvla_ros.model.checkpoint import PARTS, BundleConfig
from udvla_ros.proving.bench.random_bundle import published_layout, sizes
from udvla_ros.released import load_plan as planning
from udvla_ros.released.decoder import wanted
from udvla_ros.resources import find


@pytest.fixture
def eight(tmp_path) -> Path:
    """A bundle of the published size in bfloat16: its header is real, its 17 GB are a hole in the file."""
    config, layout = dict(sizes()["emu3-8b"].backbone), published_layout("calvin")
    header, end = {}, 0
    for name, shape in wanted(config, layout.vocabulary).items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    shutil.copytree(find("models/udvla-nano-ur5e") / "vision", tmp_path / "vision")
    made = BundleConfig("eight", config, layout, "merged", parts=dict.fromkeys(PARTS, ""))
    (tmp_path / "config.json").write_text(made.to_json())
    return tmp_path


def test_eight_billion(eight, monkeypatch):
    """8.5 billion weights; keys and values of 32 layers of 8 heads of 128 numbers for each of 1,577 tokens."""
    there = [planning.Place("cuda:0", 24 * 10**9), planning.Place("cpu", 10**10)]
    monkeypatch.setattr(planning, "places", lambda: iter(there))
    lines = planning.load_plan(eight)
    config = BundleConfig.from_json((eight / "config.json").read_text(), "")
    need = {n.dtype: n for n in planning.needs(eight, config)}
    assert need["bfloat16"].weights == pytest.approx(17.0e9, rel=0.01)
    tokens = config.layout.prefix_length + config.layout.suffix_length
    assert need["bfloat16"].cache == tokens * 2 * 32 * 8 * 128 * 2
    assert "fits nowhere here" in lines[1] and "float32" in lines[1]
    assert "bfloat16: weights 17.0 GB" in lines[2] and lines[2].endswith("fits cuda:0")


def test_command_and_refusals(eight, capsys):
    assert cli.main(["doctor", "--bundle", str(eight)]) == 0
    assert "weights 17.0 GB" in capsys.readouterr().out
    with (eight / "model.safetensors").open("r+b") as file:
        file.truncate(10**6)
    with pytest.raises(BundleError, match="truncated"):
        planning.load_plan(eight)
    with pytest.raises(BundleError, match="no config"):
        planning.load_plan(eight.parent)
