"""`udvla serve` as a process of its own: for an arm's remote policy and for vla-eval's benchmarks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vla_eval")
pytest.importorskip("websockets")

import toy_bundle

from udvla_ros.errors import ConfigError
from udvla_ros.policy import Observation, Policy
from udvla_ros.serving.remote import RemotePolicy
from udvla_ros.serving.server import BENCHMARKS, BundleServer
from udvla_ros.serving.wire import ServerLost, ServerRefused, pack, unpack

SENTENCE = "touch the red cube"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return toy_bundle.saved(tmp_path_factory.mktemp("bundles") / "toy")


@contextmanager
def serving(bundle: Path, *options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """Start the command; yield its process and its address once it says that it is ready."""
    command = [sys.executable, "-m", "udvla_ros", "serve", str(bundle), "--port", "0", "--threads", "1", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "ws://127.0.0.1:" in line, line
        yield process, line.split()[-1]
    finally:
        process.kill()
        process.wait(30)


@pytest.fixture(scope="module")
def served(bundle) -> Iterator[tuple[subprocess.Popen, str]]:
    with serving(bundle, "--benchmark", "libero", "--execute", "3") as running:
        yield running


def observation(seed: int = 0, **changes) -> Observation:
    rng = np.random.default_rng(seed)
    sizes = {"front": (48, 64), "wrist": (32, 32)}
    images = {name: rng.integers(0, 256, (*size, 3), dtype=np.uint8) for name, size in sizes.items()}
    return Observation(**{"images": images, "instruction": SENTENCE, "stamp": 4.5} | changes)


def test_the_remote_policy_is_the_local_one(bundle, served):
    remote, local = RemotePolicy(served[1], 30.0), Policy.load(bundle)
    assert (remote.hash, remote.config.name) == (local.hash, "toy-random")
    assert tuple(remote.config.cameras) == local.config.cameras
    assert remote.options() == local.options()
    assert remote.unknown_words("touch the flurb") == ["flurb"] and remote.warm_up(runs=1) > 0
    options = remote.check(remote.options(steps=2, temperature=1.0))
    for seed in range(3):
        chunk, own = remote.infer(observation(seed), options, seed), local.infer(observation(seed), options, seed)
        np.testing.assert_array_equal(chunk.actions, own.actions)
        assert (chunk.stamp, chunk.dt) == (own.stamp, own.dt)
        assert chunk.timings_ms["total"] >= chunk.timings_ms["server"] > 0
    for name, picture in own.predicted.items():
        np.testing.assert_array_equal(chunk.predicted[name], picture)
    remote.close()


def test_refusals_travel_and_the_server_stays(served):
    remote = RemotePolicy(served[1], 30.0)
    with pytest.raises(ServerRefused, match="instruction is empty"):
        remote.infer(observation(instruction=" "))
    with pytest.raises(ServerRefused, match="needs attention 'causal'"):
        remote.check(remote.options(decoder="jacobi"))
    wrong = observation(images={**observation().images, "front": np.zeros((480, 721, 3), np.uint8)})
    with pytest.raises(ServerRefused, match="721x480"):
        remote.infer(wrong)
    assert remote.infer(observation()).actions.shape == (8, 7)
    remote.close()


def test_health_and_loopback(served):
    port = served[1].rpartition(":")[2]
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{port}/health") as answer:
        assert answer.status == 200 and b"ok" in answer.read()
    table = Path(f"/proc/{served[0].pid}/net/tcp").read_text()
    listening = [row.split()[1] for row in table.splitlines()[1:] if row.split()[3] == "0A"]
    assert f"0100007F:{int(port):04X}" in listening and f"00000000:{int(port):04X}" not in listening


def test_a_dead_server_is_lost_until_engaged_anew(bundle):
    with serving(bundle) as (process, address):
        remote = RemotePolicy(address, 30.0)
        remote.infer(observation())
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        with pytest.raises(ServerLost, match="is gone"):
            remote.infer(observation())
        for _ in range(2):
            with pytest.raises(ServerLost, match=r"is gone.*engage again"):
                remote.infer(observation())
        remote.reset()
        with pytest.raises(ServerLost, match="cannot be reached"):
            remote.infer(observation())


def test_a_slow_server_is_lost_and_its_late_answer_unheard(bundle):
    with serving(bundle) as (process, address):
        remote = RemotePolicy(address, 30.0)
        first = remote.infer(observation(), seed=5)
        process.send_signal(signal.SIGSTOP)
        remote._timeout = 0.3
        with pytest.raises(ServerLost, match=r"no answer within 0\.3 s"):
            remote.infer(observation(1), seed=6)
        process.send_signal(signal.SIGCONT)
        with pytest.raises(ServerLost, match="engage again"):
            remote.infer(observation(), seed=5)
        remote.reset()
        remote._timeout = 30.0
        np.testing.assert_array_equal(remote.infer(observation(), seed=5).actions, first.actions)


@pytest.mark.parametrize(
    "sent",
    [b"no msgpack", pack("hello", {}), pack("action", {"contract": {}}, 99)],
    ids=["no msgpack", "a greeting", "no chunk"],  # a packed message holds the time: no name
)
def test_a_stranger_on_the_port_is_no_server(sent):
    from websockets.sync.server import serve

    def handler(connection):
        for _ in connection:
            connection.send(sent)

    with serve(handler, "127.0.0.1", 0) as stranger:
        thread = threading.Thread(target=stranger.serve_forever, daemon=True)
        thread.start()
        with pytest.raises(ServerLost):
            RemotePolicy(f"ws://127.0.0.1:{stranger.socket.getsockname()[1]}", 5.0)
        stranger.shutdown()


def test_nobody_there_and_no_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServerLost, match=f"ws://127.0.0.1:{port} cannot be reached"):
        RemotePolicy(f"ws://127.0.0.1:{port}", 1.0)
    with pytest.raises(ConfigError, match="give ws://host:port"):
        RemotePolicy("localhost:8000", 1.0)


def test_nothing_is_executed_that_comes_over_the_wire():
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((0, 3), np.uint8)}
    kind, payload, number = unpack(pack("observation", arrays, 7))
    assert (kind, number) == ("observation", 7)
    for name, value in arrays.items():
        np.testing.assert_array_equal(payload[name], value)
        assert payload[name].dtype == value.dtype
    evil = {"__ndarray__": True, "data": b"\0" * 8, "dtype": "|O", "shape": [1]}
    with pytest.raises(ServerLost):
        unpack(pack("observation", {"a": evil}))


# -- benchmarks ----------------------------------------------------------------------------------------


def test_specifications_are_those_of_the_benchmarks(bundle):
    specs = pytest.importorskip("vla_eval.specs")
    policy = Policy.load(bundle)
    for name, benchmark in BENCHMARKS.items():
        if len(benchmark.images) != 2:
            with pytest.raises(ConfigError, match="simpler has 1 cameras"):
                BundleServer(policy, name)
            continue
        server = BundleServer(policy, name)
        module = pytest.importorskip(f"vla_eval.benchmarks.{name}.benchmark")
        theirs = next(
            value for key, value in vars(module).items() if key.lower() == f"{name}benchmark"
        )(**server.get_observation_params())
        assert not specs.check_specs(
            server.get_action_spec(), theirs.get_action_spec(),
            server.get_observation_spec(), theirs.get_observation_spec(),
        )
    with pytest.raises(ConfigError, match="execute is 9"):
        BundleServer(policy, "libero", execute=9)


def test_a_benchmark_through_vla_eval_run(bundle, served, tmp_path):
    """`vla-eval run` in a third process: one action a step out of chunks of which three are played."""
    config = tmp_path / "toy.yaml"
    config.write_text(
        f"server: {{url: '{served[1]}'}}\noutput_dir: {tmp_path / 'results'}\n"
        "benchmarks:\n - benchmark: toy_benchmark:ToyBenchmark\n   episodes_per_task: 2\n   params: {}\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "vla_eval.cli.main", "run", "--config", str(config), "--no-docker"],
        env={**os.environ, "PYTHONPATH": path, "TOY_LOG": str(tmp_path / "log.npz")},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    seen = np.load(tmp_path / "log.npz")["actions"]
    assert seen.shape == (14, 7) and np.isfinite(seen).all()
    assert set(seen[:, 6]) <= {-1.0, 1.0}
    # What is new in an episode comes with a chunk, every third step, or at a restart.
    assert (seen[:3] != seen[3:6]).any()
