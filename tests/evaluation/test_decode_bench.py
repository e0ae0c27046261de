"""The benchmark measures what it says, in turns, counts what it claims, and tells when decoders disagree."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import tiny
import torch

from udvla_ros.cli import main as cli
from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.errors import ConfigError
from udvla_ros.model.attention import attention_kind
from udvla_ros.policy import Policy
from udvla_ros.proving.bench import cost, decode_bench, decode_rows, machine, plan, random_bundle
from udvla_ros.proving.bench.cost import Forward, Geometry
from udvla_ros.proving.bench.decode_bench import Comparison, Contender, contenders, jd3p_contenders, measure
from udvla_ros.proving.bench.public_loop import PublicLoop

PREFIX, SUFFIX = tiny.layout().prefix_length, tiny.layout().suffix_length


@pytest.fixture(scope="module", autouse=True)
def small_peak():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "SIDE", 64)
        patch.setattr(machine, "BYTES", 1 << 16)
        yield


@pytest.fixture(scope="module")
def report():
    return measure(Policy(tiny.bundle()), *jd3p_contenders(4), repeat=3)


@pytest.fixture(scope="module")
def every():
    names = ["jd3p", "jd3p_uncached", "public_loop", "autoregressive", "jacobi", "independent"]
    made = contenders(names, DecodeOptions(steps=3), plain_steps=6, changes={"steps": 2, "stop_when_ready": True})
    return measure(Policy(tiny.bundle()), *made, repeat=2, peak=True)


def test_rows_say_what_was_run(report):
    cached, full = report.rows
    assert (cached.name, cached.cached, cached.forwards) == ("jd3p", True, 5)
    assert (full.name, full.cached, full.forwards) == ("jd3p_uncached", False, 4)
    assert cached.forward_tokens == 4 * SUFFIX
    assert full.forward_tokens == 4 * (SUFFIX + PREFIX)
    for row in report.rows:
        assert row.slots == SUFFIX
        assert list(row.timings_ms["total"]) == ["p50", "p95", "p99"]
        assert row.timings_ms["total"]["p50"] >= row.timings_ms["decode"]["p50"] > 0
        assert 0 < row.timings_ms["ready"]["p50"] <= row.timings_ms["denoise"]["p50"] + 0.01
        assert row.slots_per_second == pytest.approx(1e3 * row.slots / row.timings_ms["denoise"]["p50"], rel=0.01)
        assert row.peak_memory_mib is None or row.peak_memory_mib > 10


def test_ratio_is_of_medians_and_tokens_were_compared(report):
    cached, full = report.rows
    ratio = report.ratios["cached_vs_uncached"]
    medians = [row.timings_ms["decode"]["p50"] for row in (full, cached)]
    assert ratio.decode == pytest.approx(medians[0] / medians[1], rel=0.01)
    assert ratio.tokens == pytest.approx(cached.slots_per_second / full.slots_per_second, rel=0.01)
    assert ratio.same_tokens is True
    assert (report.weights, report.threads, report.repeat) == ("bundle", 1, 3)


def test_every_decoder_has_its_row_and_every_pair_its_ratio(every):
    rows = {row.name: row for row in every.rows}
    assert " ".join(rows) == "jd3p jd3p_uncached public_loop autoregressive jacobi independent plain options"
    assert set(every.ratios) == {
        "cached_vs_uncached",
        "jd3p_vs_public_loop",
        "jd3p_vs_ar",
        "jacobi_vs_ar",
        "options_vs_plain",
        "options_vs_ar",
        "action_ready_vs_ar",
        "matmul_share",
    }
    assert {rows[name].attention for name in ("autoregressive", "jacobi")} == {"causal"}
    assert {rows[name].attention for name in ("jd3p", "public_loop")} == {"hybrid"}
    assert every.ratios["jacobi_vs_ar"].same_tokens is True
    assert rows["public_loop"].cached is False
    assert rows["public_loop"].forward_tokens == 3 * (PREFIX + SUFFIX)
    assert (rows["plain"].steps, rows["options"].steps) == (6, 2)
    ready = every.ratios["action_ready_vs_ar"]
    wanted = rows["autoregressive"].timings_ms["denoise"]["p50"] / rows["options"].timings_ms["ready"]["p50"]
    assert ready.tokens == pytest.approx(wanted, rel=0.02)
    for name, row in rows.items():
        foreseeable = name not in ("jacobi", "independent", "options")
        assert (row.gflops is not None) == foreseeable
        assert (row.flops_share is not None) == foreseeable
    assert every.ratios["matmul_share"].decode > 0
    assert every.peak_gflops > 0
    assert every.peak_gbytes_per_second > 0


def test_causal_decoders_share_the_weights_of_the_bundle():
    policy = Policy(tiny.bundle())
    other = decode_bench._policy(policy, Contender("ar", DecodeOptions(decoder="autoregressive")))
    assert other.bundle.backbone.decoder is policy.bundle.backbone.decoder
    assert (policy.config.attention, other.config.attention) == ("hybrid", "causal")
    assert policy.bundle.backbone.kind.name == "hybrid"


def test_different_tokens_are_noticed():
    made = [Contender("a", DecodeOptions(steps=1)), Contender("b", DecodeOptions(steps=6))]
    pairs = [Comparison("exact", "a", "b", exact=True), Comparison("loose", "a", "b")]
    ratios = measure(Policy(tiny.bundle()), made, pairs, repeat=2).ratios
    assert ratios["exact"].same_tokens is False
    assert ratios["loose"].same_tokens is None


def test_contenders_take_turns_and_nobody_is_always_first(monkeypatch):
    policy, order = Policy(tiny.bundle()), []
    original = policy.infer
    monkeypatch.setattr(
        policy, "infer", lambda o, options, *rest: order.append(options.use_cache) or original(o, options, *rest)
    )
    measure(policy, *jd3p_contenders(2), repeat=4)
    assert order[4:] == [True, False, False, True] * 2


# -- the published loop ------------------------------------------------------------------------------


def test_public_loop_commits_as_many_tokens_as_the_released_law():
    for steps in (1, 3, 8):
        decoded = PublicLoop(tiny.bundle())(tiny.prefix([[1, 2, 3]]), DecodeOptions(steps=steps, temperature=1.0), 0)
        left, counts = SUFFIX - 5, []  # BOI, EOI (two views) and BOA are known
        for step in range(1, steps + 1):
            keep = max(1, min(left - 1, int(SUFFIX * math.cos(math.pi / 2 * step / steps)))) if step < steps else 0
            counts.append(left - keep)
            left = keep
        assert [s.visual_committed + s.action_committed for s in decoded.steps] == counts


def test_public_loop_takes_the_most_probable_tokens_when_cold():
    """One step commits everything at once: the arg-max of each slot's codebook in one full forward."""
    bundle, prefix = tiny.bundle(), tiny.prefix([[1, 2, 3]])
    loop = PublicLoop(bundle)(prefix, DecodeOptions(steps=1), 0)
    ours = Policy(bundle)._decoder("jd3p")(prefix, DecodeOptions(steps=1), 0)
    assert loop.visual.tolist() == ours.visual.tolist()


def test_public_loop_makes_zeros_of_what_does_not_decode():
    bundle = tiny.bundle()
    loop = PublicLoop(bundle)
    zeros = [
        loop(tiny.prefix([[1]], seed), DecodeOptions(decoder="public_loop", steps=4), 0).actions[0] for seed in range(8)
    ]
    assert loop.malformed > 0
    assert zeros.count(loop.zeros) >= loop.malformed
    warm = DecodeOptions(decoder="public_loop", steps=4, temperature=1.0)
    assert loop(tiny.prefix([[1]]), warm, 0).visual.tolist() != loop(tiny.prefix([[1]]), warm, 1).visual.tolist()


# -- counts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_cache": False},
        {"action_steps": 2},
        {"steps": 2, "action_steps": 6},
        {"foresight": "off"},
        {"foresight": "sketch"},
        {"decoder": "public_loop"},
    ],
)
def test_forwards_that_are_counted_are_those_that_run(changes):
    options = DecodeOptions(**{"steps": 4, **changes})
    bundle = tiny.bundle(seed=1)
    decoder = PublicLoop(bundle) if options.decoder == "public_loop" else Policy(bundle)._decoder("jd3p")
    decoded = decoder(tiny.prefix([[1, 2, 3]], 1), options, 0)
    every = cost.forwards(tiny.layout(), attention_kind("hybrid"), options)
    counted = [one.rows for one in every][int(decoded.prefilled) :]
    ran = [step.forward_tokens for step in decoded.steps]
    assert counted[: len(ran)] == ran
    assert len(counted) - len(ran) <= 1  # a short action ends a step earlier


def test_autoregressive_forwards_are_counted():
    bundle = tiny.bundle("causal")
    decoded = Policy(bundle)._decoder("autoregressive")(tiny.prefix([[1]]), DecodeOptions(decoder="autoregressive"), 0)
    every = cost.forwards(tiny.layout(), attention_kind("causal"), DecodeOptions(decoder="autoregressive"))
    ran = [step.forward_tokens for step in decoded.steps]
    assert [one.rows for one in every][1 : 1 + len(ran)] == ran
    assert len(every) == 1 + 10 + tiny.ACTION_SLOTS


def test_operations_are_those_of_the_products():
    g = Geometry(hidden=4, intermediate=6, layers=2, heads=2, kv_heads=1, vocabulary=10)
    one = Forward(rows=3, keys=5, head=((2, 10),))

    def layer(rows: int) -> int:
        projections = rows * (4 * 4 + 4 * 4 + 4 * 12 + 6 * 4)
        return projections + 3 * 4 * 4 + 2 * (rows * 5 * 2) * 2  # keys and values of all three rows; two heads of two

    assert cost.cost(g, [one], 4, 4).flops == 2 * (2 * layer(3) + 2 * 4 * 10)
    # Without a reader of its states, the last layer gives keys and values alone.
    assert cost.cost(g, [Forward(rows=3, keys=5)], 4, 4).flops == 2 * (layer(3) + 3 * 4 * 4)
    assert cost.cost(g, [one, one], 4, 4).forwards == 2
    assert cost.forwards(tiny.layout(), attention_kind("hybrid"), DecodeOptions(confidence_threshold=0.9)) is None


def test_parameters_are_those_of_the_model():
    bundle = tiny.bundle()
    geometry = decode_rows.geometry_of(bundle)
    counted = sum(p.numel() for p in bundle.backbone.decoder.parameters())
    assert geometry.parameters == counted == bundle.backbone.shape.parameters


def test_machine_is_measured():
    peak = machine.measured_peak(torch.device("cpu"), torch.float32, repeat=1)
    assert peak.flops > 1e6
    assert peak.bytes > 1e6
    g = Geometry(hidden=8, intermediate=8, layers=1, heads=1, kv_heads=1, vocabulary=10)
    few, many = [Forward(2, 2, ((2, 10),))], [Forward(2, 2, ((2, 10),))] * 50
    seconds = [machine.plain_seconds(g, each, torch.device("cpu"), torch.float32) for each in (few, many)]
    assert 0 < seconds[0] < seconds[1]


# -- the model of a GPU ------------------------------------------------------------------------------


def test_plan_is_computed_from_the_counts():
    geometry, layout = random_bundle.geometry("emu3-8b"), random_bundle.published_layout("calvin")
    assert geometry.parameters == 8_492_011_520  # of the released checkpoints
    rows = plan.plan(geometry, layout)
    assert {row.gpu for row in rows} == {"RTX 4090", "A100 80GB SXM", "H100 SXM", "Jetson AGX Orin 64GB"}
    for row in rows:
        gpu = next(gpu for gpu in plan.GPUS if gpu.name == row.gpu)
        floor = max(row.tflops * 1e12 / gpu.flops, row.gbytes * 1e9 / gpu.bandwidth)
        assert row.chunk_ms / 1e3 > floor
    published = next(row for row in rows if (row.gpu, row.decoder, row.steps) == ("H100 SXM", "public_loop", 72))
    assert 2500 < published.chunk_ms < 5000  # the authors report 817 / 219.3 = 3.7 s on one data-centre GPU


@pytest.mark.parametrize("command", [["bench", "--plan", "gpu"], ["bench", "decode", "--plan", "gpu"]])
def test_plan_is_labelled_as_a_model(command, tmp_path, capsys):
    file = tmp_path / "plan.json"
    arguments = [*command, "--json", str(file)] if command[1] == "decode" else command
    assert cli.main(arguments) == 0
    assert "MODEL, NOT MEASURED" in capsys.readouterr().out
    if command[1] == "decode":
        values = json.loads(file.read_text())
        assert values["kind"] == "MODEL, NOT MEASURED"
        assert len(values["rows"]) == 4 * 7
        assert all(gpu["source"] for gpu in values["gpus"])


# -- the command -------------------------------------------------------------------------------------


def test_command_writes_a_report_a_picture_and_says_random(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(random_bundle, "random_bundle", lambda *_, **__: tiny.bundle())
    file = tmp_path / "bench.json"
    arguments = [
        "bench",
        "decode",
        "--backbone",
        "nano",
        "--repeat",
        "2",
        "--steps",
        "2",
        "--json",
        str(file),
        "--plain-steps",
        "3",
        "--option",
        "foresight=off",
        "--option",
        "action_steps=1",
    ]
    assert cli.main(arguments) == 0
    values = json.loads(file.read_text())
    assert values["weights"] == "random"
    assert [row["name"] for row in values["rows"]] == [
        "jd3p",
        "jd3p_uncached",
        "public_loop",
        "autoregressive",
        "jacobi",
        "plain",
        "options",
    ]
    assert values["ratios"]["cached_vs_uncached"]["same_tokens"] is True
    assert {"decode", "chunk", "tokens"} <= set(values["ratios"]["jd3p_vs_public_loop"])
    assert values["runtime"] == {
        "dtype": "float32",
        "weights": "float",
        "compile": "off",
        "graphs": True,
        "tf32": False,
        "threads": None,
    }
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "RANDOM WEIGHTS" in said
    assert "1 threads" in said


def test_command_fails_where_tokens_differ(monkeypatch):
    monkeypatch.setattr(random_bundle, "random_bundle", lambda *_, **__: tiny.bundle())
    monkeypatch.setattr(decode_bench, "_equal", lambda a, b: False)
    assert cli.main(["bench", "decode", "--backbone", "nano", "--repeat", "1", "--steps", "1"]) == 1


def test_a_draw_that_only_rounding_moved_is_no_difference(monkeypatch):
    """Where float32 differs, float64 is asked; a difference there counts."""
    monkeypatch.setattr(random_bundle, "random_bundle", lambda *_, **__: tiny.bundle())
    asked = []

    def decoded(policy, one, options):
        asked.append(policy.bundle.backbone.dtype)
        return object() if asked[-1] == torch.float32 else "the same"

    monkeypatch.setattr(decode_bench, "_decoded", decoded)
    monkeypatch.setattr(decode_bench, "_equal", lambda a, b: a == b)
    arguments = ["bench", "decode", "--backbone", "nano", "--repeat", "1", "--steps", "1"]
    arguments += ["--decoders", "jd3p,jd3p_uncached"]
    assert cli.main(arguments) == 0
    assert asked == [torch.float32] * 2 + [torch.float64] * 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--decoders", "jd3p,foo", "--backbone", "nano"], "unknown decoder foo"),
        (["--option", "speed=9", "--backbone", "nano"], "--option speed=9: give NAME=VALUE"),
        ([], "give --bundle FOLDER or --backbone SIZE"),
        (["--bundle", "somewhere", "--layout", "nano"], "a bundle has its own layout"),
    ],
)
def test_wrong_arguments_are_named(monkeypatch, capsys, arguments, word):
    monkeypatch.setattr(random_bundle, "random_bundle", lambda *_, **__: tiny.bundle())
    assert cli.main(["bench", "decode", *arguments]) == 2
    assert word in capsys.readouterr().err


def test_random_sizes_hold_together():
    bundle = random_bundle.random_bundle("nano")
    bundle.check()
    assert bundle.config.name == "random-nano"
    chunk = Policy(bundle).infer(decode_bench.observations(bundle, 1)[0], DecodeOptions(steps=1))
    assert chunk.actions.shape == (8, 7)
    with pytest.raises(ConfigError, match="nano, small, base, emu3-8b"):
        random_bundle.random_bundle("huge")
    with pytest.raises(ConfigError, match="nano, calvin, libero, ur5e-256"):
        random_bundle.random_bundle("nano", "moon")


def test_small_decoder_over_a_published_sequence():
    bundle = random_bundle.random_bundle("nano", "calvin")
    bundle.check()
    layout = bundle.config.layout
    assert (layout.prefix_length, layout.suffix_length) == (760, 817)
    assert bundle.config.name == "random-nano-calvin"


def test_layouts_and_sizes_are_the_published_ones():
    lengths = {name: random_bundle.published_layout(name) for name in random_bundle.layouts() if name != "nano"}
    assert {name: (layout.image_tokens, layout.suffix_length) for name, layout in lengths.items()} == {
        "calvin": (747, 817),
        "libero": (747, 817),
        "ur5e-256": (2070, 2135),
    }
    millions = {name: round(random_bundle.geometry(name).parameters / 1e6) for name in ("base", "emu3-8b")}
    assert millions == {"base": 359, "emu3-8b": 8492}


def test_no_memory_is_said_before_it_is_gone(monkeypatch):
    read, memory = random_bundle.Path.read_text, "MemAvailable:    1000000 kB\n"
    scarce = lambda path, *rest: memory if str(path) == "/proc/meminfo" else read(path, *rest)  # noqa: E731
    monkeypatch.setattr(random_bundle.Path, "read_text", scarce)
    with pytest.raises(ConfigError, match=r"needs about .* GiB and 1 GiB are free"):
        random_bundle._check_memory("base", "float32")


def test_options_row_takes_changes_only():
    made, _ = contenders(["jd3p"], DecodeOptions(steps=4, temperature=1.0), 24, {"remask": 0.2})
    by = {one.name: one.options for one in made}
    assert by["options"] == dataclasses.replace(by["jd3p"], remask=0.2)
    assert by["plain"] == DecodeOptions(steps=24, temperature=1.0)
    assert math.isclose(by["jd3p"].temperature, 1.0)
