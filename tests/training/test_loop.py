"""A run that is killed goes on as if nothing had happened, and every batch follows from seed and step."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch

from udvla_ros.errors import ConfigError
from udvla_ros.model.weights import named
from udvla_ros.tokens.layout import Vocabulary
from udvla_ros.training import loop
from udvla_ros.training.loop import PolicyTrainer, PolicyTraining, corruption_seed, frames_in_batches
from udvla_ros.training.optimizer import Average, JoinedMuon, build_optimizers, learning_rate

SHORT = PolicyTraining(
    steps=6, stage1_steps=2, batch=6, copies=2, blind_copies=1, warmup=2, lr=3e-3, ema=0.9,
    validate_every=3, checkpoint_minutes=0.0, backbone=dict(tiny.BACKBONE),
)  # fmt: skip
DATA = tiny.sequences()


def trainer(folder, model: int = 0, **changes) -> PolicyTrainer:
    return PolicyTrainer(tiny.backbone(seed=model).train(), DATA, dataclasses.replace(SHORT, **changes), folder)


def weights(run: PolicyTrainer) -> dict[str, torch.Tensor]:
    now = {f"now {n}": p.detach().clone() for n, p in run.backbone.named_parameters()}
    return now | {f"average {n}": p.clone() for n, p in run.average.values.items()}


class Killed(Exception):
    pass


def killer(_trainer):
    raise Killed


# -- resuming ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_killed_run_ends_with_the_very_parameters_of_an_uninterrupted_one(tmp_path, optimizer):
    whole = trainer(tmp_path / "whole", optimizer=optimizer)
    whole.run()

    first = trainer(tmp_path / "killed", optimizer=optimizer)
    assert not first.resume()
    with pytest.raises(Killed):
        first.run(killer)  # in the third step, before its checkpoint
    assert first.step == 3
    second = trainer(tmp_path / "killed", model=99, optimizer=optimizer)
    assert second.resume()
    assert second.step == 2
    second.run()
    assert second.step == whole.step == 6
    expected = weights(whole)
    assert expected.keys() == weights(second).keys()
    for name, value in weights(second).items():
        assert torch.equal(value, expected[name]), name


def test_training_moves_every_parameter_but_the_average_lags(tmp_path):
    run = trainer(tmp_path)
    before = weights(run)
    run.run()
    after = weights(run)
    for name in before:
        assert not torch.equal(before[name], after[name]), name
    # Every embedding row that the data holds, at least, and all matrices: compare now with average.
    assert any(not torch.equal(after[n], after[n.replace("now ", "average ")]) for n in after if n.startswith("now "))


def test_checkpoint_survives_a_kill_while_it_is_written(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    run.train_step()
    run.save()

    def half(state, path):
        path.write_bytes(b"PK half a file")
        raise Killed

    run.train_step()
    monkeypatch.setattr(loop.torch, "save", half)
    with pytest.raises(Killed):
        run.save()
    monkeypatch.undo()
    other = trainer(tmp_path, model=5)
    assert other.resume()
    assert other.step == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 1e-3}, "lr"),
        ({"seed": 1}, "seed"),
        ({"copies": 1}, "copies"),
        ({"optimizer": "adamw"}, "optimizer"),
        ({"backbone": {"hidden_size": 64}}, "backbone"),
        ({"lr": 1e-3, "omega": 1.0}, "omega, lr|lr, omega"),
    ],
)
def test_resuming_with_another_configuration_is_refused_by_name(tmp_path, change, named):
    run = trainer(tmp_path)
    run.save()
    other = trainer(tmp_path, **change)
    before = weights(other)
    with pytest.raises(ConfigError, match=named):
        other.resume()
    assert all(torch.equal(before[name], value) for name, value in weights(other).items())


def test_checkpoint_of_another_vocabulary_is_refused_in_one_line(tmp_path):
    trainer(tmp_path).save()
    wide = dataclasses.replace(tiny.layout(), vocabulary=Vocabulary.compact(40, tiny.VISUAL, tiny.FAST_CODES))
    other = PolicyTrainer(tiny.backbone(layout=wide), DATA, SHORT, tmp_path)
    with pytest.raises(ConfigError, match=r"checkpoint\.pt does not fit") as caught:
        other.resume()
    assert "\n" not in str(caught.value)


def test_a_longer_run_may_go_on_from_a_shorter_one(tmp_path):
    run = trainer(tmp_path)
    run.save()
    assert trainer(tmp_path, steps=12, checkpoint_minutes=9.0, validate_every=7).resume()


def test_averaged_weights_are_lent_and_given_back(tmp_path):
    run = trainer(tmp_path)
    run.run()
    before = weights(run)
    with run.averaged() as net:
        assert not net.training
        for name, parameter in net.named_parameters():
            assert torch.equal(parameter, before[f"average {name}"])
    assert run.backbone.training
    assert all(torch.equal(before[name], value) for name, value in weights(run).items())


def test_log_has_one_json_line_per_event(tmp_path):
    run = trainer(tmp_path)
    run.run(lambda _: {"score": 0.123456789})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [{"step": 3, "score": 0.12346}, {"step": 6, "score": 0.12346}]


# -- batches -----------------------------------------------------------------------------------------


def batches(run: PolicyTrainer, monkeypatch) -> list[dict]:
    """Run to the end and return what the objective was given."""
    seen = []
    original = run.prepared
    monkeypatch.setattr(run, "prepared", lambda **batch: seen.append(batch) or original(**batch))
    while run.step < run.config.steps:
        run.train_step()
    return seen


def equal(a: dict, b: dict) -> bool:
    pairs = [(a[k], b[k]) for k in a if k not in ("corrupted", "visual_count", "action_count")]
    parts = ("ids", "action_ids", "visual", "action")
    pairs += [(getattr(a["corrupted"], k), getattr(b["corrupted"], k)) for k in parts]
    return all(torch.equal(x, y) for x, y in pairs)


def test_batches_follow_from_seed_and_step_alone(tmp_path, monkeypatch):
    whole = batches(trainer(tmp_path / "a"), monkeypatch)
    torch.manual_seed(1234)
    np.random.seed(1234)
    late = trainer(tmp_path / "b", model=7, lr=1e-4)
    late.step = 4
    assert [equal(*pair) for pair in zip(batches(late, monkeypatch), whole[4:], strict=True)] == [True, True]
    assert not equal(whole[4], whole[5])
    assert not equal(batches(trainer(tmp_path / "c", seed=1), monkeypatch)[0], whole[0])


def test_corruption_seed_is_the_same_everywhere():
    # Written down: a change would make resumed runs draw other masks than the run they go on with.
    assert [corruption_seed(0, 0), corruption_seed(0, 1), corruption_seed(1, 0)] == [3831201730, 901243215, 1501029259]
    assert len({corruption_seed(s, t) for s in range(20) for t in range(200)}) == 4000


def test_stage_one_comes_first_and_hides_no_action(tmp_path, monkeypatch):
    seen = batches(trainer(tmp_path), monkeypatch)
    for step, batch in enumerate(seen):
        hidden, blocks = batch["corrupted"].action.any(), batch["corrupted"].action_ids.shape[1]
        assert (bool(hidden), blocks) == ((False, 0) if step < 2 else (True, 1))
        assert batch["corrupted"].ids.shape[1] == 2


def test_held_out_episodes_are_never_drawn():
    drawn = np.concatenate([DATA.draw(50, 0, step) for step in range(20)])
    assert set(drawn) <= set(DATA.train)
    assert not set(DATA.train) & set(DATA.validation)
    assert len(DATA.train) + len(DATA.validation) == len(DATA.suffix)
    held = set(DATA.shard.episode[DATA.validation])
    assert held
    assert not held & set(DATA.shard.episode[DATA.train])


def test_processes_divide_a_batch_between_them(tmp_path):
    run = trainer(tmp_path)
    frames = DATA.draw(6, 0, 3)
    shares = []
    for rank in range(2):
        run.accelerator = SimpleNamespace(num_processes=2, process_index=rank, device=torch.device("cpu"))
        shares.append(run.batch(frames, torch.Generator().manual_seed(5), 2))
    run.accelerator = SimpleNamespace(num_processes=1, process_index=0, device=torch.device("cpu"))
    whole = run.batch(frames, torch.Generator().manual_seed(5), 2)
    for name in ("prefix_ids", "target"):
        assert torch.equal(torch.cat([share[name] for share in shares]), whole[name])
    for name in ("ids", "visual", "action", "action_ids"):
        parts = [getattr(share["corrupted"], name) for share in shares]
        assert torch.equal(torch.cat(parts), getattr(whole["corrupted"], name))
    assert sum(share["visual_count"] for share in shares) == whole["visual_count"]


def test_frames_in_batches_keeps_all_in_order():
    parts = list(frames_in_batches(np.arange(7), 3))
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4, 5], [6]]


# -- learning ----------------------------------------------------------------------------------------


def test_loss_falls_on_data_that_can_be_learnt(tmp_path):
    run = PolicyTrainer(
        tiny.backbone(initializer_range=0.05).train(), tiny.sequences(episodes=2, steps=3),
        dataclasses.replace(SHORT, steps=45, stage1_steps=5, batch=8, lr=1e-2, warmup=5), tmp_path,
    )  # fmt: skip
    losses = [run.train_step() for _ in range(45)]
    first, last = losses[5:10], losses[-5:]
    for part in ("visual", "action"):
        before, after = (np.mean([getattr(x, part).item() for x in some]) for some in (first, last))
        assert after < 0.7 * before


def test_learning_rate_rises_then_falls_to_the_floor():
    rates = [learning_rate(step / 100, step, 1.0, 10, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, abs=0.01)
    assert np.argmax(rates) in (9, 10)
    assert rates[50] == pytest.approx(0.55, abs=0.01)
    assert rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_muon_steps_joined_matrices_as_if_they_were_apart():
    torch.manual_seed(0)
    whole = torch.nn.Parameter(torch.randn(24, 8))
    apart = [torch.nn.Parameter(part.clone()) for part in whole.detach().split([8, 8, 8])]
    joined = JoinedMuon([(whole, [8, 8, 8])], 0.1, 0.1)
    plain = torch.optim.Muon(apart, lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        whole.grad = torch.randn(24, 8)
        for part, grad in zip(apart, whole.grad.split([8, 8, 8]), strict=True):
            part.grad = grad.clone()
        joined.step()
        plain.step()
        joined.zero_grad()
        assert whole.grad is None
    torch.testing.assert_close(whole.detach(), torch.cat([part.detach() for part in apart]))


def test_muon_takes_the_decoders_matrices_and_nothing_else():
    net = tiny.backbone()
    adam, muon = build_optimizers(net, "muon", 1e-3, 0.1)
    where = {part.data_ptr(): name for name, part in named(net.decoder)}
    assert {where[p.data_ptr()] for p in muon.param_groups[0]["params"]} == {n for n in where.values() if "proj" in n}
    taken = {id(p) for group in adam.param_groups for p in group["params"]}
    assert {n for n, p in net.decoder.named_parameters() if id(p) not in taken} == {
        n for n, p in net.decoder.named_parameters() if p.ndim == 2 and "layers" in n
    }
    (only,) = build_optimizers(net, "adamw", 1e-3, 0.1)
    sizes = [sum(p.numel() for p in group["params"]) for group in only.param_groups]
    assert sum(sizes) == sum(p.numel() for p in net.parameters())
    assert [group["weight_decay"] for group in only.param_groups] == [0.1, 0.0]
    assert only.param_groups[0]["betas"] == (0.9, 0.95)


def test_average_forgets_fast_while_young():
    net = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(0.0)
    average = Average(net, 0.9)
    with torch.no_grad():
        net.weight.fill_(1.0)
    average.update(net, step=0)
    assert float(average.values["weight"]) == pytest.approx(0.9)  # 1 - 1/10
    average.update(net, step=10_000)
    assert float(average.values["weight"]) == pytest.approx(0.9 + 0.1 * 0.1)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"stage1_steps": 6}, "stage1_steps"), ({"optimizer": "sgd"}, "sgd")],
)
def test_wrong_values_are_named(wrong, named):
    with pytest.raises(ConfigError, match=named):
        dataclasses.replace(SHORT, **wrong)


def test_a_batch_in_pieces_has_the_gradient_of_the_whole(tmp_path):
    runs = [trainer(tmp_path / str(n), accumulate=n, optimizer="adamw") for n in (1, 3)]
    for run in runs:
        for _ in range(3):
            losses = run.train_step()
        run.last = losses
    torch.testing.assert_close(runs[0].last.total, runs[1].last.total, rtol=1e-4, atol=1e-5)
    for (name, one), (_, other) in zip(weights(runs[0]).items(), weights(runs[1]).items(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-4, msg=name)


def test_pieces_must_divide_the_batch():
    with pytest.raises(ConfigError, match="must divide"):
        dataclasses.replace(SHORT, accumulate=4)


def test_the_losses_are_in_an_event_file_too(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trainer(tmp_path, validate_every=100)
    run.log(step=0, action=1.5)
    run.step = 7
    run.log(step=7, action=0.5)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("action")] == [(0, 1.5), (7, 0.5)]


def test_silent_prompts_are_as_many_as_asked_for(tmp_path):
    run = trainer(tmp_path, null_prompt=0.5, batch=6)
    pad = run.backbone.layout.vocabulary.pad
    silent = []
    for step in range(60):
        made = run.batch(run.data.draw(6, 0, step), torch.Generator().manual_seed(step), 2)
        silent += (made["prefix_ids"][:, : run.backbone.layout.text_slots - 1] == pad).all(1).tolist()
    assert 0.4 < np.mean(silent) < 0.6
