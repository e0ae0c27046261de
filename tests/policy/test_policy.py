"""From pictures and a sentence to a chunk in physical units, with a bundle of random weights."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import tiny
import torch

from udvla_ros.errors import BundleError, ConfigError, ObservationError, TokenError
from udvla_ros.policy import DecodeOptions, Observation, Policy
from udvla_ros.policy.convention import fitted
from udvla_ros.tokens.layout import View

SENTENCE = "touch the red cube"


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Policy:
    folder = tiny.saved(tmp_path_factory.mktemp("bundles") / "tiny")
    return Policy.load(folder)


def observation(seed: int = 0, sentence: str = SENTENCE, **changes) -> Observation:
    return Observation({**tiny.images(seed), **changes}, sentence, stamp=12.5)


# -- the chunk ---------------------------------------------------------------------------------------


def test_chunk_has_the_bundles_shape_units_and_clock(policy):
    chunk = policy.infer(observation())
    assert chunk.actions.shape == (tiny.CHUNK, tiny.DIMENSIONS)
    assert chunk.actions.dtype == np.float32
    assert set(chunk.actions[:, tiny.GRIPPER]) <= {-1.0, 1.0}
    assert (chunk.dt, chunk.stamp) == (0.1, 12.5)
    assert {name: image.shape for name, image in chunk.predicted.items()} == {
        "front": (8, 12, 3),
        "wrist": (8, 8, 3),
    }
    assert all(image.dtype == np.uint8 for image in chunk.predicted.values())


def test_actions_are_the_decoded_codes_in_physical_units(policy, monkeypatch):
    codes = policy.bundle.fast.encode(tiny.chunks(1, seed=3)[0], clip=True)
    normalised = policy.bundle.fast.decode(codes)
    actions = policy._actions(codes)
    expected = normalised[:, :2] * np.array([0.02, 0.04])  # metres; the ranges are symmetric
    np.testing.assert_allclose(actions[:, :2], expected, atol=1e-7)
    assert actions[:, 2].tolist() == np.where(normalised[:, 2] > 0, 1.0, -1.0).tolist()


def test_gripper_is_left_alone_where_there_is_none(policy):
    action = dataclasses.replace(policy.config.action, gripper=None)
    bundle = dataclasses.replace(policy.bundle, config=dataclasses.replace(policy.config, action=action))
    codes = policy.bundle.fast.encode(tiny.chunks(1, seed=3)[0] * 0.5, clip=True)
    assert not set(Policy(bundle)._actions(codes)[:, 2]) <= {-1.0, 1.0}


def test_predicted_images_are_the_decoded_codes(policy):
    options = DecodeOptions(steps=3)
    prefix = policy.config.layout.prefix([policy.bundle.text.encode(SENTENCE)], policy._encode([observation()]))
    decoded = policy._decoder("jd3p")(prefix, options, 0)
    front = decoded.visual[:, :6].reshape(1, 2, 3)
    expected = policy.bundle.vision.decode(front)[0]
    assert (policy.infer(observation(), options).predicted["front"] == expected).all()


def test_the_future_is_painted_when_it_is_asked_for_and_once(policy, monkeypatch):
    painted = []
    decode = policy.bundle.vision.decode
    monkeypatch.setattr(policy.bundle.vision, "decode", lambda codes: painted.append(codes) or decode(codes))
    chunk = policy.infer(observation(), DecodeOptions(steps=2))
    assert not painted and "image_decode" not in chunk.timings_ms
    assert set(chunk.predicted) == {"front", "wrist"} and chunk.predicted is chunk.predicted
    assert len(painted) == 2 and chunk.timings_ms["image_decode"] > 0


def test_each_row_of_a_batch_paints_its_own_future(policy):
    several = policy.infer_batch([observation(0), observation(1)], DecodeOptions(steps=2))
    views = policy.config.layout.split_views(several[1].codes[0][None])
    assert (several[1].predicted["wrist"] == policy.bundle.vision.decode(views["wrist"])[0]).all()
    assert "image_decode" not in several[0].timings_ms


def test_views_of_one_size_are_encoded_together(policy, monkeypatch):
    """The same picture in two views of one size must become the same codes, whichever view it is in."""
    square = [View("front", 8, 8, 2, 2), View("wrist", 8, 8, 2, 2)]
    layout = dataclasses.replace(policy.config.layout, views=tuple(square))
    twin = Policy(dataclasses.replace(policy.bundle, config=dataclasses.replace(policy.config, layout=layout)))
    calls = []
    encode = policy.bundle.vision.encode
    monkeypatch.setattr(policy.bundle.vision, "encode", lambda images: calls.append(len(images)) or encode(images))
    looks = [Observation({"front": tiny.images(s)["wrist"], "wrist": tiny.images(s + 5)["wrist"]}, SENTENCE)
             for s in (0, 1)]  # fmt: skip
    codes = twin._encode(looks)
    assert calls == [4]
    for row, seen in enumerate(looks):
        for name in ("front", "wrist"):
            assert (codes[name][row] == encode(seen.images[name][None])[0].numpy()).all()


def test_a_decoder_that_this_bundle_cannot_have_is_refused_before_it_runs(policy):
    with pytest.raises(ConfigError, match="attention"):
        policy.check(DecodeOptions(decoder="jacobi"))
    with pytest.raises(ConfigError, match="oracle"):
        policy.check(DecodeOptions(decoder="oracle"))
    assert policy.check(DecodeOptions(decoder="independent")).decoder == "independent"


def test_without_foresight_nothing_is_predicted(policy):
    chunk = policy.infer(observation(), DecodeOptions(foresight="off", steps=2))
    assert chunk.predicted == {}
    assert chunk.actions.shape == (tiny.CHUNK, tiny.DIMENSIONS)


def test_the_images_and_the_sentence_matter(policy):
    hot = DecodeOptions(steps=2)
    chunks = [
        policy.infer(o, hot).predicted["front"].tobytes()
        for o in (observation(0), observation(1), observation(0, "pick up the green cube"))
    ]
    assert len(set(chunks)) == 3


def test_seed_decides_a_warm_sample(policy):
    warm = DecodeOptions(steps=3, temperature=2.0)
    first, again, other = (policy.infer(observation(), warm, seed=s) for s in (1, 1, 2))
    assert (first.predicted["front"] == again.predicted["front"]).all()
    assert (first.actions == again.actions).all()
    assert (first.predicted["front"] != other.predicted["front"]).any()


def test_batch_equals_singles(policy):
    several = [observation(0), observation(1, "pick up the green cube")]
    several.append(observation(2, "push the blue cube to the left"))
    for chunk, one in zip(policy.infer_batch(several), several, strict=True):
        alone = policy.infer(one)
        assert (chunk.actions == alone.actions).all()
        for name in chunk.predicted:
            assert (chunk.predicted[name] == alone.predicted[name]).all()


def test_timings_and_statistics_travel_with_the_chunk(policy):
    chunk = policy.infer(observation(), DecodeOptions(steps=4))
    stages = ("image_encode", "prefill", "denoise", "detokenise")
    assert set(chunk.timings_ms) == {*stages, "action_ready", "total"}
    assert all(value > 0 for value in chunk.timings_ms.values())
    assert chunk.timings_ms["action_ready"] <= chunk.timings_ms["total"]
    assert sum(chunk.timings_ms[s] for s in stages) <= chunk.timings_ms["total"] + 1e-6
    assert chunk.statistics["forwards"] == 5
    assert len(chunk.statistics["steps"]) == 4
    assert chunk.statistics["forward_tokens"] == 4 * tiny.layout().suffix_length
    assert len(chunk.statistics["action_codes"]) == 1


def test_same_bundle_same_chunk_after_reloading(policy, tmp_path):
    other = Policy.load(policy.bundle.save(tmp_path / "copy"))
    assert other.hash == policy.hash
    assert (other.infer(observation()).actions == policy.infer(observation()).actions).all()


# -- what comes in -----------------------------------------------------------------------------------


def test_missing_camera_is_named(policy):
    only = {"front": tiny.images()["front"]}
    with pytest.raises(ObservationError, match="camera wrist"):
        policy.infer(Observation(only, SENTENCE))


def test_cameras_beyond_the_bundles_are_ignored(policy):
    extra = observation(spare=np.zeros((3, 3), np.float32))
    assert (policy.infer(extra).actions == policy.infer(observation()).actions).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 12, 3), np.float32),
        np.zeros((8, 12), np.uint8),
        np.zeros((8, 12, 4), np.uint8),
        np.zeros((3, 8, 12), np.uint8),
        np.zeros((0, 0, 3), np.uint8),
    ],
    ids=["float", "grey", "rgba", "channels first", "empty"],
)
def test_wrong_images_are_refused(policy, image):
    with pytest.raises(ObservationError, match="camera front gave"):
        policy.infer(observation(front=image))


def test_other_aspect_is_refused(policy):
    with pytest.raises(ObservationError, match=r"camera front is 12x12.*12x8"):
        policy.infer(observation(front=np.zeros((12, 12, 3), np.uint8)))


def test_one_bad_image_of_a_batch_refuses_the_batch(policy):
    bad = observation(front=np.zeros((12, 12, 3), np.uint8))
    with pytest.raises(ObservationError):
        policy.infer_batch([observation(), bad])


@pytest.mark.parametrize("sentence", ["", "   \n"])
def test_empty_instruction_is_refused(policy, sentence):
    with pytest.raises(TokenError, match="instruction"):
        policy.infer(observation(sentence=sentence))


def test_long_instruction_is_refused(policy):
    with pytest.raises(TokenError, match="20 tokens and the bundle takes 8"):
        policy.infer(observation(sentence="cube " * 20))


def test_unknown_words_are_told(policy):
    assert policy.unknown_words("touch the purple cube") == ["purple"]


@pytest.mark.parametrize("scale", [2, 5])
def test_larger_images_are_averaged_down(policy, scale):
    small = tiny.images()["front"]
    large = small.repeat(scale, 0).repeat(scale, 1)
    assert (fitted(large, View("front", 8, 12, 2, 3)) == small).all()
    assert (policy.infer(observation(front=large)).actions == policy.infer(observation()).actions).all()


def test_smaller_images_are_enlarged_to_the_views_size():
    view = View("front", 8, 12, 2, 3)
    small = np.full((4, 6, 3), (10, 200, 30), np.uint8)
    assert (fitted(small, view) == small[0, 0]).all()
    assert fitted(small, view).shape == (8, 12, 3)


def test_thin_red_object_survives_shrinking():
    """Area averaging keeps the colour's share; picking single pixels would lose the object or the ground."""
    large = np.zeros((80, 120, 3), np.uint8)
    large[:, 5::10, 0] = 250
    mean = fitted(large, View("front", 8, 12, 2, 3)).reshape(-1, 3).mean(0)
    assert mean[0] == pytest.approx(25, abs=1)
    assert mean[1] == 0


def test_camera_of_nearly_the_right_aspect_is_accepted():
    assert fitted(np.zeros((480, 721, 3), np.uint8), View("front", 8, 12, 2, 3)).shape == (8, 12, 3)


def test_flipped_views_of_an_image_are_read_correctly(policy):
    image = tiny.images()["front"]
    reversed_channels = np.ascontiguousarray(image[..., ::-1])[..., ::-1]  # negative strides
    assert (policy.infer(observation(front=reversed_channels)).actions == policy.infer(observation()).actions).all()
    large = cv2.resize(image, (24, 16))
    view = View("front", 8, 12, 2, 3)
    assert (fitted(large[::-1], view) == fitted(np.ascontiguousarray(large[::-1]), view)).all()


# -- options and loading -----------------------------------------------------------------------------


def test_bundles_own_options_are_the_default(policy):
    assert policy.options().steps == 3
    assert len(policy.infer(observation()).statistics["steps"]) == 3
    assert policy.options(steps=7, foresight="off") == DecodeOptions(steps=7, foresight="off")


def test_options_of_a_newer_bundle_are_refused_in_one_line(policy):
    config = dataclasses.replace(policy.config, decoding={"steps": 3, "telepathy": True})
    newer = Policy(dataclasses.replace(policy.bundle, config=config))
    with pytest.raises(BundleError, match="telepathy"):
        newer.options()


def test_unknown_decoder_lists_the_known(policy):
    with pytest.raises(ConfigError, match=r"'oracle'.*jd3p"):
        policy.infer(observation(), DecodeOptions(decoder="oracle"))


def test_warm_up_needs_no_camera_and_tells_its_time(policy):
    assert policy.warm_up(runs=1) > 0


def test_threads_are_set_on_request(tmp_path):
    before = torch.get_num_threads()
    try:
        Policy.load(tiny.saved(tmp_path / "tiny"), threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_absent_bundle_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        Policy.load(tmp_path / "nowhere")


def test_configuration_offers_what_a_robot_is_checked_against(policy):
    config = policy.config
    assert config.cameras == ("front", "wrist")
    assert (config.action_space, config.action_frame, config.control_hz, config.chunk) == ("tcp_delta", "base", 10.0, 4)
    assert len(policy.hash) == 64
