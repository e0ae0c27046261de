"""Fine-tuning as released: what is hidden, what it weighs, adapters, and two processes that tune a converted bundle."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import released_files as files
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.errors import ConfigError
from udvla_ros.model.backbone import Backbone
from udvla_ros.model.checkpoint import ActionConvention, Bundle, BundleConfig, ImageConvention
from udvla_ros.policy.convention import fitted
from udvla_ros.released.convert import convert
from udvla_ros.resources import find
from udvla_ros.rollouts.episodes import FORMAT, TURNED_AROUND, VERSION, Episode, read_shard, write_shard
from udvla_ros.tokens.layout import Layout, View, emu3_header
from udvla_ros.training.corruption import _share, corrupt
from udvla_ros.training.kept import bring
from udvla_ros.training.loop import PolicyTrainer, PolicyTraining
from udvla_ros.training.lora import adapt, plain_state
from udvla_ros.training.policy import PolicyRun, Recipe
from udvla_ros.training.released import ReleasedObjective

SHORT = PolicyTraining(
    objective="released", steps=6, stage1_steps=0, batch=4, blind_copies=0, optimizer="adamw", warmup=1, lr=3e-3,
    validate_every=99, backbone=tiny.BACKBONE,
)  # fmt: skip
LORA = dataclasses.replace(SHORT, lora_rank=2, lora_alpha=4)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.125, 1.0, width=32), min_size=1, max_size=3), st.integers(1, 40), st.data())
def test_just_the_rounded_share_is_hidden(ratios, slots, data):
    ratio = torch.tensor([ratios])
    known = torch.tensor([data.draw(st.lists(st.booleans(), min_size=slots, max_size=slots))])
    generator = torch.Generator().manual_seed(0)
    every = _share(ratio, slots, generator)[0].sum(-1).tolist()
    assert every == [max(1, round(float(slots * r))) for r in ratio[0]]
    among = _share(ratio, slots, generator, known)
    count = int(known.sum())
    assert not (among[0] & ~known).any()
    assert among[0].sum(-1).tolist() == [min(count, max(1, round(float(count * r)))) for r in ratio[0]]


def framed_layout() -> Layout:
    """The tiny one with size headers."""
    views = tuple(dataclasses.replace(view, header=(1, 2, 3)) for view in tiny.VIEWS)
    return dataclasses.replace(tiny.layout(), views=views)


def batch(objective: ReleasedObjective, layout: Layout, size: int = 3) -> dict:
    """Random sequences with tokens hidden as released."""
    codes = tiny.fast().encode_batch(tiny.chunks(size), clip=True)
    target = torch.as_tensor(layout.suffix(tiny.image_codes(size, 1), codes))
    slots = objective.image_slots, objective.backbone.action_slots
    generator = torch.Generator().manual_seed(0)
    hidden = corrupt(target, *slots, layout.vocabulary.mask, generator=generator, exact=True)
    prefix = tiny.tensors(tiny.prefix([[1, 2]] * size, layout=layout))
    names = ("prefix_ids", "prefix_positions", "prefix_modality")
    counts = objective.counts(target, hidden, 1)
    return {**dict(zip(names, prefix, strict=True)), "target": target, "corrupted": hidden, **counts}


@pytest.mark.parametrize("kind", ["merged", "hybrid"])
def test_loss_is_one_weighted_mean_over_all_hidden_tokens_and_all_ids(kind):
    layout = framed_layout()
    model = tiny.backbone(kind, layout=layout)
    objective = ReleasedObjective(model, omega=0.5, chunk=7)
    given = batch(objective, layout)
    ids, target, v = given["corrupted"].ids[:, 0], given["target"], layout.vocabulary
    hidden = (ids == v.mask) & (target != v.mask)
    assert (hidden & (target < v.visual_first)).sum() > hidden[:, model.action_slots].sum()  # frames among them
    never = torch.isin(target, torch.tensor([v.boi, v.eoi, v.boa]))
    assert not hidden[never].any()
    mask, positions = model.sequence_mask(given["prefix_modality"], given["prefix_positions"])
    states = model.hidden(torch.cat([given["prefix_ids"], ids], 1), positions, mask)
    logits = states[:, given["prefix_ids"].shape[1] - 1 : -1] @ model.decoder.head.T
    losses = torch.nn.functional.cross_entropy(logits[hidden], target[hidden], reduction="none")
    weights = torch.where(target[hidden] >= v.visual_first, 0.5, 1.0)
    torch.testing.assert_close(objective(**given).total, (losses * weights).sum() / weights.sum())


def trainer(folder: Path, config: PolicyTraining, seed: int = 0) -> PolicyTrainer:
    return PolicyTrainer(tiny.backbone(seed=seed).train(), tiny.sequences(), config, folder)


def gradients(run: PolicyTrainer) -> torch.Tensor:
    frames, generator = run.draw(), torch.Generator().manual_seed(1)
    for piece in run.pieces(run.batch(frames, generator, 2)):
        run.prepared(**piece).total.backward()
    return torch.cat([p.grad.flatten() for p in run.backbone.parameters() if p.grad is not None])


def test_a_batch_in_pieces_weighs_as_a_whole(tmp_path):
    whole, pieces = (gradients(trainer(tmp_path, dataclasses.replace(SHORT, accumulate=n))) for n in (1, 4))
    torch.testing.assert_close(whole, pieces, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("changes", "named"), [
    ({"blind_copies": 1}, "blind_copies"), ({"lora_rank": 4, "optimizer": "muon"}, "adamw"),
    ({"lora_rank": -1}, "lora_rank"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(changes, named):
    with pytest.raises(ConfigError, match=named):
        dataclasses.replace(SHORT, **changes)


# -- adapters ------------------------------------------------------------------------------------------


def logits_of(model: Backbone) -> torch.Tensor:
    prefix = tiny.tensors(tiny.prefix([[1, 2]]))
    mask, positions = model.sequence_mask(prefix[2], prefix[1])
    with torch.inference_mode():
        ids = torch.cat([prefix[0], model.suffix_ids[None]], 1)
        return model.logits(model.eval().hidden(ids, positions, mask))


def test_adapters_begin_as_nothing_learn_alone_and_are_merged(tmp_path):
    before = tiny.backbone()
    kept = {name: value.clone() for name, value in before.state_dict().items()}
    run = trainer(tmp_path, LORA)
    torch.testing.assert_close(logits_of(run.backbone), logits_of(before))
    run.backbone.train()
    version = run.backbone.version()
    for _ in range(3):
        run.train_step()
    assert run.backbone.version() != version  # or decoding would keep what the old weights said of the text
    trained = {name for name, p in run.backbone.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 4 * 2 and all(".lora_" in name for name in trained)  # A and B, four matrices, two layers
    state = plain_state(run.backbone)
    changed = {name for name, value in state.items() if not torch.equal(value, kept[name])}
    assert changed == {f"decoder.layers.{i}.{n}.weight" for i in (0, 1) for n in ("qkv", "out", "gate_up", "down")}
    plain = tiny.backbone()
    plain.load_state_dict(state)
    torch.testing.assert_close(logits_of(plain), logits_of(run.backbone), atol=1e-4, rtol=1e-4)
    assert (logits_of(plain) - logits_of(before)).abs().max() > 1e-3
    assert all(torch.linalg.matrix_rank(state[name] - kept[name], tol=1e-5) <= 2 for name in changed)


def test_adapted_runs_go_on_bit_for_bit_and_keep_the_adapters_alone(tmp_path):
    whole = trainer(tmp_path / "whole", LORA)
    whole.run()
    half = trainer(tmp_path / "half", LORA)
    for _ in range(3):
        half.train_step()
    half.save()
    rest = trainer(tmp_path / "half", LORA)
    assert rest.resume()
    rest.run()
    ends = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "half")]
    assert ends[0]["model"].keys() == {n for n, p in whole.backbone.named_parameters() if p.requires_grad}
    for name, value in ends[0]["model"].items():
        assert torch.equal(value, ends[1]["model"][name])


def test_rounded_weights_take_no_adapters():
    model = tiny.backbone()
    model.decoder.round("int8")
    with pytest.raises(ConfigError, match="float"):
        adapt(model.decoder, 2, 4, 0.0)


# -- a converted bundle, tuned by two processes ----------------------------------------------------------


def converted(folder: Path) -> Path:
    """A bundle of random weights in the released layout, with small pictures so that its sequences are short."""
    released = files.write(folder / "released")
    convert(released.request(folder / "converted"))
    bundle = Bundle.load(folder / "converted")
    layout = bundle.config.layout
    views = tuple(
        View(name, 8 * rows, 8 * cols, rows, cols, emu3_header(rows, cols, bundle.text.encode))
        for name, rows, cols in (("front", 2, 3), ("wrist", 2, 2))
    )
    plain = {**bundle.config.backbone, "attention_dropout": 0.0}  # each process would draw its own
    config = dataclasses.replace(bundle.config, backbone=plain, layout=dataclasses.replace(layout, views=views))
    small = Backbone(config.backbone, config.layout, config.attention)
    small.load_state_dict(bundle.backbone.state_dict())
    return dataclasses.replace(bundle, config=config, backbone=small).save(folder / "bundle")


def episodes(folder: Path, chunk: int = 10, **described: object) -> Path:
    """Four short demonstrations for LIBERO's rate and chunk, pictures of another size than the bundle's."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(4):
        t = 5
        intention = rng.uniform(-0.02, 0.02, (t, chunk, 7)).astype(np.float32)
        intention[..., 6] = 1.0
        sizes = {"front": (32, 48), "wrist": (16, 16), "side": (16, 16)}
        images = {name: rng.integers(0, 256, (t + 1, *size, 3), dtype=np.uint8) for name, size in sizes.items()}
        made.append(Episode(
            images, intention, intention[:, 0], np.zeros((t + 1, 6), np.float32), np.zeros((t + 1, 6), np.float32),
            np.zeros(t + 1, np.float32), np.zeros(t + 1, np.float32), np.tile(np.eye(4), (t + 1, 1, 1)),
            np.zeros((t + 1, 3, 7), np.float32), "pick up the red cube", "pick", "red", number, 0, t,
        ))  # fmt: skip
    write_shard(folder / "shard-00000.npz", made)
    told = {
        "format": FORMAT, "version": VERSION, "control_hz": 20, "intention_shape": [chunk, 7],
        "episodes_per_task": {"pick": 4}, "cameras": {name: list(size) for name, size in sizes.items()}, **described,
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(told))
    return folder


def tune(folder: Path, out: str, *settings: str) -> Path:
    """Tune the bundle to ``hybrid`` in this process, as one of however many there are; validate and export."""
    recipe = Recipe.load(Path(find("config/training/released.yaml")), [
        "attention=hybrid", "training.steps=4", "training.batch=4", "training.precision='no'", "training.lr=0.003",
        "training.warmup=1", "training.validate_every=2", "training.lora_rank=4", *settings,
    ])  # fmt: skip
    recipe = dataclasses.replace(recipe, decoding={"steps": 3})
    return PolicyRun(recipe, [folder / "data"], None, None, folder / out, start=folder / "bundle").run()


def launched(folder: Path, out: str) -> None:
    """The same in two processes over gloo, which part once they have read the program."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    tests = Path(tiny.__file__).parent
    environment = {
        **os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false", "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    command = [sys.executable, __file__, str(folder), out]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def one_of_two(folder: Path, out: str) -> None:
    """What a process of ``launched`` does; the second is a fork, so that torch is imported but once."""
    import peft  # noqa: F401  (seconds)

    second = os.fork()
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if second else "1"
    tune(folder, out)
    assert torch.distributed.get_world_size() == 2
    torch.distributed.destroy_process_group()
    if second:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]))


def logged(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.timeout(300)
def test_two_processes_tune_a_converted_bundle_to_hybrid(tmp_path):
    """Weights and adapters divided over two processes (FSDP): the scores and the bundle of one."""
    converted(tmp_path)
    episodes(tmp_path / "data")
    launched(tmp_path, "two")
    tune(tmp_path, "one", "training.sharded=false")
    one, two = logged(tmp_path / "one"), logged(tmp_path / "two")
    assert [row.keys() for row in one] == [row.keys() for row in two] and len(one) == 2
    for row, other in zip(one, two, strict=True):
        for name in ("nll_visual", "nll_action"):
            assert other[name] == pytest.approx(row[name], abs=1e-4)
    before = Bundle.load(tmp_path / "bundle")
    alone, both = (Bundle.load(tmp_path / name / "bundle") for name in ("one", "two"))
    assert both.config.attention == "hybrid" and both.config.layout == before.config.layout
    assert both.config.decoding["sampler"] == "published" and both.config.action == before.config.action
    states = [bundle.backbone.state_dict() for bundle in (before, alone, both)]
    for name, first in states[0].items():
        torch.testing.assert_close(states[1][name], states[2][name], atol=1e-4, rtol=0)
        adapted = any(part in name for part in ("qkv", "out", "gate_up", "down"))
        assert torch.equal(first, states[2][name]) != adapted, name
        assert (first - states[2][name]).abs().max() > 1e-3 or not adapted


# -- data of another making ------------------------------------------------------------------------------

LIBERO = BundleConfig(
    "libero", {}, dataclasses.replace(tiny.layout(), views=(View("front", 16, 24, 2, 3),)),
    action=ActionConvention(chunk=10, control_hz=20.0, scale=(0.05,) * 3 + (0.5,) * 3 + (1.0,)),
    images=ImageConvention("bicubic", turned=True), decoding={},
)  # fmt: skip
TOLD = {"space": "tcp_delta", "frame": "base", "chunk": 10, "dimensions": 7, "gripper": 6, "control_hz": 20.0}


def test_physical_labels_and_upright_pictures_become_the_bundles(tmp_path):
    brought = bring(episodes(tmp_path), LIBERO)
    (episode, *_) = read_shard(tmp_path / "shard-00000.npz")
    np.testing.assert_allclose(brought.labels(episode.intention) * LIBERO.action.scale, episode.intention, atol=1e-6)
    view = LIBERO.views[0]
    expected = fitted(episode.images["front"][0][::-1, ::-1], view, ImageConvention("bicubic"))
    np.testing.assert_array_equal(brought.pictures("front", episode.images["front"])[0], expected)


def test_data_in_the_bundles_own_numbers_are_taken_as_they_are(tmp_path):
    """As `udvla data generate --suite` writes them: scaled already, turned already."""
    action = {**TOLD, "scale": list(LIBERO.action.scale)}
    brought = bring(episodes(tmp_path, action=action, images=TURNED_AROUND, crops={"front": [0, 0, 1, 1]}), LIBERO)
    (episode, *_) = read_shard(tmp_path / "shard-00000.npz")
    np.testing.assert_array_equal(brought.labels(episode.intention), episode.intention)
    upright = fitted(episode.images["front"][0], LIBERO.views[0], ImageConvention("bicubic"))
    np.testing.assert_array_equal(brought.pictures("front", episode.images["front"])[0], upright)


def test_pictures_cut_as_the_bundle_cuts_are_not_cut_again(tmp_path):
    part = [0.0, 0.0, 0.5, 0.5]
    cuts = dataclasses.replace(LIBERO, images=dataclasses.replace(LIBERO.images, crops={"front": part}))
    brought = bring(episodes(tmp_path, images=TURNED_AROUND, crops={"front": part}), cuts)
    assert brought.images == ImageConvention("bicubic")
    with pytest.raises(ConfigError, match="crops"):
        bring(tmp_path, LIBERO)


@pytest.mark.parametrize(("described", "named"), [
    ({"chunk": 8}, "chunk 10 and 8"),
    ({"control_hz": 10}, "control_hz 20.0 and 10.0"),
    ({"action": {**TOLD, "space": "joint_delta"}}, "space tcp_delta and joint_delta"),
    ({"action": {**TOLD, "frame": "tcp"}}, "frame base and tcp"),
    ({"action": {**TOLD, "scale": [0.1] * 7}}, "scale"),
    ({"cameras": {"wrist": [16, 16]}}, "no front"),
])  # fmt: skip
def test_data_that_cannot_become_the_bundles_are_refused(tmp_path, described, named):
    with pytest.raises(ConfigError, match=named):
        bring(episodes(tmp_path, **described), LIBERO)


if __name__ == "__main__":
    one_of_two(Path(sys.argv[1]), sys.argv[2])
