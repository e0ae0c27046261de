"""A teacher's ways are what it did, and a student learns where they end."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny
import torch

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.decoding.jd3p import JD3P
from udvla_ros.errors import ConfigError
from udvla_ros.tokens.layout import Prefix
from udvla_ros.training import trajectories as room
from udvla_ros.training.distill import ConsistencyObjective, Distillation, Distiller
from udvla_ros.training.loop import PolicyTrainer, PolicyTraining
from udvla_ros.training.trajectories import NEVER, Trajectories, collect

DATA = tiny.sequences()
V, TEMPLATE = tiny.layout().vocabulary, tiny.layout().template
SLOTS = np.concatenate([TEMPLATE.visual_slots, TEMPLATE.action_slots])
TEACHER = DecodeOptions(steps=6, temperature=1.0)
CONFIG = Distillation(steps=12, batch=6, warmup=2, lr=3e-3, ema=0.9, backbone=dict(tiny.BACKBONE))


def prefix(rows) -> Prefix:
    parts = (DATA.prefix_ids, DATA.prefix_positions, DATA.prefix_modality)
    return Prefix(*(part[rows].astype(np.int64) for part in parts))


@pytest.fixture
def ways(tmp_path) -> Trajectories:
    return collect(tiny.bundle(), DATA, np.arange(12), tmp_path / "ways", TEACHER, delta=1e9, batch=5)


def test_a_way_ends_where_the_teacher_does_and_begins_with_nothing(ways):
    bundle = tiny.bundle()
    decoder = JD3P(bundle.backbone, bundle.fast.lattice(tiny.ACTION_SLOTS))
    for first in (0, 5, 10):
        decoded = decoder(prefix(np.arange(first, min(first + 5, 12))), TEACHER, seed=first)
        tokens = ways.tokens[first : first + 5]
        np.testing.assert_array_equal(tokens[:, TEMPLATE.visual_slots] - V.visual_first, decoded.visual)
    start, open_slots = ways.state(np.arange(12), np.zeros(12, int), SLOTS, V.mask)
    assert (start[:, SLOTS] == V.mask).all()
    assert (open_slots.sum(1) >= len(TEMPLATE.visual_slots) + 1).all()
    end, open_slots = ways.state(np.arange(12), np.full(12, TEACHER.steps), SLOTS, V.mask)
    np.testing.assert_array_equal(end, ways.tokens)
    assert not open_slots.any()


def test_states_only_ever_gain_tokens(ways):
    before, _ = ways.state(np.arange(12), np.zeros(12, int), SLOTS, V.mask)
    for step in range(1, TEACHER.steps + 1):
        now, _ = ways.state(np.arange(12), np.full(12, step), SLOTS, V.mask)
        kept = before != V.mask
        np.testing.assert_array_equal(now[kept], before[kept])
        assert (now != V.mask).sum() > kept.sum()
        before = now


def test_far_actions_give_way_to_the_demonstration(tmp_path):
    bundle = tiny.bundle()
    near = collect(bundle, DATA, np.arange(12), tmp_path / "near", TEACHER, delta=1e9)
    far = collect(bundle, DATA, np.arange(12), tmp_path / "far", TEACHER, delta=0.0)
    slots = TEMPLATE.action_slots
    assert not near.corrected.any()
    assert far.corrected.all()
    np.testing.assert_array_equal(far.tokens[:, slots], DATA.suffix[:12][:, slots])
    np.testing.assert_array_equal(far.tokens[:, TEMPLATE.visual_slots], near.tokens[:, TEMPLATE.visual_slots])
    empty = far.tokens[:, slots] == V.mask
    assert (far.committed[:, slots][empty] == NEVER).all()
    assert (far.committed[:, slots][~empty] < TEACHER.steps).all()


def test_collection_goes_on_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "SHARD", 4)
    whole = collect(tiny.bundle(), DATA, np.arange(12), tmp_path / "whole", TEACHER, 0.5)
    calls = []
    write = room._write

    def killed(path, arrays):
        if calls:
            raise KeyboardInterrupt
        calls.append(path)
        write(path, arrays)

    monkeypatch.setattr(room, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        collect(tiny.bundle(), DATA, np.arange(12), tmp_path / "cut", TEACHER, 0.5)
    monkeypatch.setattr(room, "_write", write)
    resumed = collect(tiny.bundle(), DATA, np.arange(12), tmp_path / "cut", TEACHER, 0.5)
    for name in ("tokens", "committed", "corrected"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    with pytest.raises(ConfigError, match="other options"):
        collect(tiny.bundle(), DATA, np.arange(12), tmp_path / "cut", dataclasses.replace(TEACHER, steps=3), 0.5)


def test_the_target_gets_no_gradient_and_follows_the_average(ways, tmp_path):
    run = Distiller(tiny.backbone().train(), DATA, ways, CONFIG, tmp_path)
    before = [p.detach().clone() for p in run.backbone.parameters()]
    for _ in range(3):
        run.train_step()
    assert all(p.grad is None for p in run.target.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, run.backbone.parameters(), strict=True))
    run.follow()
    for name, value in run.target.named_parameters():
        assert torch.equal(value, run.average.values[name])


def test_a_student_that_says_the_end_already_has_nothing_to_learn(ways, tmp_path):
    """With labels alone and a head that is certain of them, the loss is zero; of a uniform one it is log of codes."""
    model = tiny.backbone()
    with torch.no_grad():
        model.decoder.head.zero_()
    objective = ConsistencyObjective(model, model, dataclasses.replace(CONFIG, consistency=1.0, labels=1.0))
    run = Distiller(tiny.backbone(), DATA, ways, CONFIG, tmp_path)
    losses = objective(**run.batch(np.arange(6), torch.Generator().manual_seed(0), 2))
    assert losses.visual.item() == pytest.approx(np.log(V.visual_size), rel=1e-4)
    assert losses.action.item() == pytest.approx(np.log(V.action_size + 1), rel=1e-4)


def test_a_student_learns_where_the_ways_of_a_trained_teacher_end(tmp_path):
    torch.manual_seed(0)
    data = tiny.sequences(episodes=3, steps=4)
    teacher = tiny.backbone(initializer_range=0.05).train()
    config = PolicyTraining(
        steps=150, stage1_steps=5, batch=12, copies=2, blind_copies=0, lr=1e-2, warmup=5, ema=0.9,
        backbone=dict(tiny.BACKBONE),
    )  # fmt: skip
    first = PolicyTrainer(teacher, data, config, tmp_path / "teacher")
    for _ in range(150):
        first.train_step()
    bundle = tiny.bundle(model=teacher.eval())
    greedy = DecodeOptions(steps=6)
    ways = collect(bundle, data, data.train, tmp_path / "ways", greedy, delta=1e9)
    settings = dataclasses.replace(CONFIG, steps=80, batch=12, lr=3e-3)
    run = Distiller(tiny.backbone(initializer_range=0.05).train(), data, ways, settings, tmp_path / "student")
    run.backbone.load_state_dict(teacher.state_dict())
    run.average.values = {n: p.detach().clone() for n, p in run.backbone.named_parameters()}
    losses = [run.train_step() for _ in range(80)]
    assert np.mean([x.action.item() for x in losses[-10:]]) < np.mean([x.action.item() for x in losses[:10]])


def test_resumed_distillation_is_the_uninterrupted_one(ways, tmp_path):
    whole = Distiller(tiny.backbone().train(), DATA, ways, CONFIG, tmp_path / "whole")
    for _ in range(6):
        whole.train_step()
    cut = Distiller(tiny.backbone().train(), DATA, ways, CONFIG, tmp_path / "cut")
    for _ in range(3):
        cut.train_step()
    cut.save()
    again = Distiller(tiny.backbone(seed=5).train(), DATA, ways, CONFIG, tmp_path / "cut")
    assert again.resume()
    for _ in range(3):
        again.train_step()
    for one, two in zip(whole.backbone.parameters(), again.backbone.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("wrong", [{"consistency": -1.0}, {"consistency": 0.0, "labels": 0.0}])
def test_wrong_weights_are_refused(wrong):
    with pytest.raises(ConfigError, match="weights"):
        dataclasses.replace(CONFIG, **wrong)


def test_only_jd3p_teaches(tmp_path):
    with pytest.raises(ConfigError, match="jd3p"):
        collect(tiny.bundle(), DATA, np.arange(2), tmp_path, DecodeOptions(foresight="off"), 1.0)
