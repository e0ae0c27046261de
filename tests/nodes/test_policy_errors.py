"""What is in the way of the shipped ``policy_node``: one line each, which says what to do."""

from __future__ import annotations

import pytest

rclpy = pytest.importorskip("rclpy")
torch = pytest.importorskip("torch")

from toy_bundle import saved  # noqa: E402

from udvla_ros.nodes import policy_node, runtime  # noqa: E402


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("part", "model.safetensors"), ("text", "config.json is no bundle"), ("folder", "does not exist"),
        ("device", "cuda"), ("robot", "nowhere.yaml"),
    ],
)  # fmt: skip
def test_what_is_in_the_way_is_one_line_and_exit_code_2(toy, tmp_path, capfd, spoil, said):
    if spoil == "device" and torch.cuda.is_available():
        pytest.skip("this machine has the GPU that the test wants to be missing")
    chosen = {"bundle": str(toy), "device": "cpu", "robot": "config/robots/ur5e_sim.yaml"}
    if spoil in ("part", "text"):
        (tmp_path / "broken").mkdir()
        for path in toy.iterdir():
            if path.name != {"part": "model.safetensors", "text": "config.json"}[spoil]:
                (tmp_path / "broken" / path.name).symlink_to(path)
    if spoil == "text":
        (tmp_path / "broken/config.json").write_bytes(b'{"name": "caf\xe9"}')
    chosen |= {
        "part": {"bundle": str(tmp_path / "broken")},
        "text": {"bundle": str(tmp_path / "broken")},
        "folder": {"bundle": str(tmp_path / "nowhere")},
        "device": {"device": "cuda"},
        "robot": {"robot": "config/robots/nowhere.yaml"},
    }[spoil]
    arguments = [part for name, value in chosen.items() for part in ("-p", f"{name}:={value}")]
    code = runtime.run(policy_node.make, args=["--ros-args", "-p", "autostart:=true", *arguments])
    said_at_all = capfd.readouterr().err
    last = said_at_all.rstrip().splitlines()[-1]
    assert code == 2 and said in last, said_at_all
    assert "Traceback" not in said_at_all
