"""Released files become a bundle that says what they said, or are refused in one line that names the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import released_files as files
import torch
from safetensors.torch import load_file, save_file

from udvla_ros.cli import main as cli
from udvla_ros.errors import BundleError, ConfigError
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.policy import Observation, Policy
from udvla_ros.released import convert as converting
from udvla_ros.released.convert import convert
from udvla_ros.tokens.vision import VisionTokenizer


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> files.Released:
    return files.write(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def bundle(released, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "libero"
    convert(released.request(out))
    return out


@pytest.fixture
def copy(released, tmp_path) -> files.Released:
    """Folders to spoil."""
    folders = {name: Path(shutil.copytree(getattr(released, name), tmp_path / name))
               for name in ("decoder", "vision", "fast", "norm")}  # fmt: skip
    return files.Released(**folders, model=released.model, eyes=released.eyes)


def refused(request, *named: str, kind: type[Exception] = BundleError) -> None:
    with pytest.raises(kind) as caught:
        convert(request)
    line = str(caught.value)
    assert "\n" not in line
    for word in named:
        assert word in line, line
    assert not (request.out / "config.json").exists()


def observation(bundle: Bundle, seed: int = 0) -> Observation:
    rng = np.random.default_rng(seed)
    sizes = {"front": (256, 256), "wrist": (256, 256)}
    return Observation(
        {n: rng.integers(0, 256, (*s, 3), dtype=np.uint8) for n, s in sizes.items()}, "pick up the red cube"
    )


def test_round_trip(released, bundle, tmp_path):
    loaded = Bundle.load(bundle)
    assert loaded.config.name == "udvla-libero" and loaded.config.attention == "merged"
    assert (loaded.config.chunk, loaded.config.control_hz, loaded.config.images.turned) == (10, 20.0, True)
    policy = Policy(loaded)
    options = policy.options(steps=2)
    chunk = policy.infer(observation(loaded), options, seed=3)
    assert chunk.actions.shape == (10, 7) and np.isfinite(chunk.actions).all()
    assert {n: p.shape for n, p in chunk.predicted.items()} == {"front": (200, 200, 3), "wrist": (80, 80, 3)}
    again = Policy(Bundle.load(loaded.save(tmp_path / "again")))
    second = again.infer(observation(loaded), options, seed=3)
    np.testing.assert_array_equal(second.actions, chunk.actions)
    np.testing.assert_array_equal(second.predicted["front"], chunk.predicted["front"])


def test_weights_are_the_released_ones(released, bundle):
    state = load_file(bundle / "model.safetensors")
    theirs = released.model.state_dict()
    assert set(state) == set(theirs)
    assert all(torch.equal(state[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("form", ["bin", "one"])
def test_other_forms_give_the_same_file(form, released, bundle, tmp_path):
    other = files.write(tmp_path / "in", form=form)
    convert(other.request(tmp_path / "out"))
    assert (tmp_path / "out/model.safetensors").read_bytes() == (bundle / "model.safetensors").read_bytes()


def test_transformers_own_format_gives_the_same_file(copy, bundle, tmp_path):
    for path in copy.decoder.glob("model*"):
        path.unlink()
    state = {name: value.contiguous() for name, value in copy.model.state_dict().items()}
    nested = {
        f"model.text_model.{n.removeprefix('model.')}" if n.startswith("model.") else n: v for n, v in state.items()
    }
    nested |= {f"model.vqmodel.{name}": value.contiguous() for name, value in copy.eyes.state_dict().items()}
    save_file(nested, copy.decoder / "model.safetensors")
    values = json.loads((copy.decoder / "config.json").read_text())
    text = {key: values.pop(key) for key in (*files.SIZES, "vocab_size")}
    text["rope_parameters"] = {"rope_theta": text.pop("rope_theta")}
    (copy.decoder / "config.json").write_text(json.dumps({**values, "model_type": "emu3", "text_config": text}))
    copy.eyes.save_pretrained(copy.vision)  # of transformers' names and configuration
    convert(copy.request(tmp_path / "out"))
    assert (tmp_path / "out/model.safetensors").read_bytes() == (bundle / "model.safetensors").read_bytes()
    assert load_file(tmp_path / "out/vision/model.safetensors").keys() == copy.eyes.state_dict().keys()


def test_vision_codes_are_those_of_the_original(released, bundle):
    images = np.random.default_rng(0).integers(0, 256, (1, 80, 80, 3), dtype=np.uint8)
    codes = VisionTokenizer.load(bundle / "vision").encode(images)
    assert torch.equal(codes, VisionTokenizer(released.eyes).encode(images))
    assert len(codes.unique()) > 1


def test_shards_and_their_index(released, bundle, tmp_path):
    convert(released.request(tmp_path / "out", shard=60_000))
    shards = sorted((tmp_path / "out").glob("model-*.safetensors"))
    where = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())["weight_map"]
    assert len(shards) > 2 and {shard.name for shard in shards} == set(where.values())
    state = {name: value for shard in shards for name, value in load_file(shard).items()}
    one = load_file(bundle / "model.safetensors")
    assert set(state) == set(one) == set(where) and all(torch.equal(state[name], one[name]) for name in one)


def test_dtype_rounds_as_torch_does(released, tmp_path):
    convert(released.request(tmp_path / "out", dtype=torch.bfloat16))
    state = load_file(tmp_path / "out/model.safetensors")
    theirs = released.model.state_dict()
    assert all(torch.equal(state[name], theirs[name].bfloat16()) for name in theirs)


def test_goes_on_where_it_was_cut(released, tmp_path, monkeypatch):
    """The second shard fails: what is done is not read again, and the result is that of one run."""
    request = released.request(tmp_path / "out", shard=60_000)
    write, written = converting.write_safetensors, []

    def failing(path, *rest):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        return write(path, *rest)

    monkeypatch.setattr(converting, "write_safetensors", failing)
    with pytest.raises(KeyboardInterrupt):
        convert(request)
    assert not (request.out / "config.json").exists() and (request.out / "convert.json").exists()
    done = written.copy()
    (request.out / done[0]).write_bytes(b"spoilt since")  # its hash says so, and it is written again
    monkeypatch.setattr(
        converting, "write_safetensors", lambda path, *rest: (written.append(path.name), write(path, *rest))[1]
    )
    config, _ = convert(request)
    assert written[2] == done[0] and done[1] not in written[2:]
    assert not (request.out / "convert.json").exists()
    convert(released.request(tmp_path / "whole", shard=60_000))
    assert Path(tmp_path / "whole/config.json").read_text() == (request.out / "config.json").read_text()
    assert config.parts


def test_another_conversion_is_not_taken_up(released, tmp_path, monkeypatch):
    monkeypatch.setattr(converting, "write_shards", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        convert(released.request(tmp_path / "out"))
    monkeypatch.undo()
    refused(released.request(tmp_path / "out", dtype=torch.float16), "another conversion", "--out", kind=ConfigError)


def test_a_bundle_is_not_written_over(released, bundle):
    with pytest.raises(ConfigError, match="holds a bundle already"):
        convert(released.request(bundle))


# -- bad input ---------------------------------------------------------------------------------------


def shard(copy) -> Path:
    return copy.decoder / "model-00001-of-00002.safetensors"


@pytest.mark.parametrize("part", ["decoder", "vision", "fast"])
def test_missing_config_is_named(copy, tmp_path, part):
    name = "processor_config.json" if part == "fast" else "config.json"
    (getattr(copy, part) / name).unlink()
    refused(copy.request(tmp_path / "out"), str(getattr(copy, part)), name)


def test_missing_shard(copy, tmp_path):
    shard(copy).unlink()
    refused(copy.request(tmp_path / "out"), "model-00001-of-00002.safetensors", "1 of 2 shards", "download")


def test_truncated_shard(copy, tmp_path):
    shard(copy).write_bytes(shard(copy).read_bytes()[:-100])
    refused(copy.request(tmp_path / "out"), str(shard(copy)), "truncated", "download it again")


@pytest.mark.parametrize("content", [b"", b"\xff" * 40])
def test_no_safetensors_at_all(copy, tmp_path, content):
    shard(copy).write_bytes(content)
    refused(copy.request(tmp_path / "out"), str(shard(copy)), "download it again")


@pytest.mark.parametrize("file", ["decoder/model-00002-of-00002.safetensors", "decoder/config.json",
                                  "decoder/emu3.tiktoken",
                                  "vision/model.safetensors", "vision/config.json"])  # fmt: skip
def test_git_lfs_pointer(copy, tmp_path, file):
    path = getattr(copy, file.split("/")[0]) / file.split("/")[1]
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    refused(copy.request(tmp_path / "out"), str(path), "Git LFS pointer", "git lfs pull")


def test_missing_extra_and_misshaped_tensors(copy, tmp_path):
    path, index = shard(copy), copy.decoder / "model.safetensors.index.json"
    whole, listed = load_file(path), json.loads(index.read_text())
    name = "model.norm.weight" if "model.norm.weight" in whole else sorted(whole)[0]

    def spoil(state, where):
        save_file(state, path)
        index.write_text(json.dumps({"weight_map": where}))

    rest = {k: v for k, v in whole.items() if k != name}
    spoil(rest, listed["weight_map"])
    refused(copy.request(tmp_path / "out"), str(path), f"lacks {name}")
    spoil(rest, {k: v for k, v in listed["weight_map"].items() if k != name})
    refused(copy.request(tmp_path / "out"), f"lacks {name}", "1 decoder weights missing")
    spoil(
        {**whole, "model.action_head.weight": torch.zeros(2)},
        {**listed["weight_map"], "model.action_head.weight": path.name},
    )
    refused(copy.request(tmp_path / "out"), str(path), "model.action_head.weight", "too many")
    spoil({**whole, name: torch.zeros(3)}, listed["weight_map"])
    refused(copy.request(tmp_path / "out"), str(path), name, "shape [3]")


def test_numbers_that_are_none(copy, tmp_path):
    state = load_file(shard(copy))
    name = sorted(state)[0]
    state[name].view(-1)[0] = float("nan")
    save_file(state, shard(copy))
    refused(copy.request(tmp_path / "out"), str(shard(copy)), name, "NaN")


def test_pickle_is_not_run(copy, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    for path in copy.decoder.glob("model*"):
        path.unlink()
    torch.save({"model.norm.weight": Evil()}, copy.decoder / "pytorch_model.bin")
    refused(copy.request(tmp_path / "out"), "pytorch_model.bin", "nothing in it was run")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("key", "value"), [("vocab_size", 151_936), ("boi_token_id", 5), ("model_type", "llama"),
                                            ("action_experts", True), ("hidden_size", None)])  # fmt: skip
def test_configuration_of_another_model(copy, tmp_path, key, value):
    path = copy.decoder / "config.json"
    values = {**json.loads(path.read_text()), key: value}
    if value is None:
        del values[key]
    path.write_text(json.dumps(values))
    refused(copy.request(tmp_path / "out"), str(path), key.replace("model_type", "llama"))


def test_wrong_text_vocabulary(copy, tmp_path):
    path = copy.decoder / "emu3.tiktoken"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    refused(copy.request(tmp_path / "out"), str(path), "899 entries", "900 text ids")
    path.write_text("not base64 at all\n")
    refused(copy.request(tmp_path / "out"), str(path), "line 1")


def test_wrong_list_of_visual_tokens(copy, tmp_path):
    path = copy.decoder / "emu3_vision_tokens.txt"
    path.write_text(path.read_text().replace("000003", "000030"))
    refused(copy.request(tmp_path / "out"), str(path), "64", "in order")


def test_vision_of_another_size(copy, tmp_path):
    path = copy.vision / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "codebook_size": 32}))
    refused(copy.request(tmp_path / "out"), "vision", "quantize.embedding.weight")


def test_settings_that_contradict(copy, tmp_path):
    refused(copy.request(tmp_path / "out", setting="calvin"), "calvin", "libero", kind=ConfigError)
    refused(copy.request(tmp_path / "out", setting="mars"), "mars", "calvin, libero, bridge", kind=ConfigError)


def test_command(tmp_path, capsys, monkeypatch):
    made = files.write(tmp_path / "in")
    monkeypatch.setattr("udvla_ros.released.convert.Vocabulary.published", staticmethod(files.vocabulary))
    arguments = ["convert", str(made.decoder), "--vision", str(made.vision), "--fast", str(made.fast), "--norm",
                 str(made.norm), "--out", str(tmp_path / "out"), "--dtype", "bfloat16"]  # fmt: skip
    assert cli.main(arguments) == 0
    output = capsys.readouterr()
    assert "none of the published ones" in output.err and "udvla-libero" in output.out
    assert cli.main(arguments) == 2
    assert "holds a bundle already" in capsys.readouterr().err
