"""What validation says is about the bundle as it decodes, and right where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from udvla_ros.training.validation import Validation


@pytest.fixture
def look(tmp_path):
    bundle = tiny.bundle()
    return Validation(bundle, tiny.sequences(), tmp_path, bundle.config.decoding)


def test_it_decodes_with_the_bundles_own_options(tmp_path):
    made = Validation(tiny.bundle(), tiny.sequences(), tmp_path, {"steps": 2, "temperature": 0.7})
    assert (made.options.steps, made.options.temperature) == (2, 0.7)


def test_a_model_that_knows_nothing_has_the_likelihood_of_chance(look):
    for parameter in look.bundle.backbone.parameters():
        parameter.data.zero_()
    found = look.likelihood()
    v = look.bundle.config.layout.vocabulary
    assert found["nll_visual"] == pytest.approx(np.log(v.visual_size), rel=1e-4)
    assert found["nll_action"] == pytest.approx(np.log(v.action_size + 1), rel=1e-4)


def test_the_right_cube_is_the_named_one_that_a_chunk_ends_nearest_to(look):
    shard, rows = look.data.shard, look.steps
    shard.places[rows, 0] = 0.0
    shard.places[rows, 1:] = np.array([[0.2, 0, 0], [0, 0.2, 0], [-0.2, 0, 0]])
    shard.named[rows] = 0
    truth = np.zeros((len(rows), 8, 7))
    truth[:, :, 0] = 0.01
    assert look._right_cube(truth, truth) == {"right_cube": 1.0, "right_cube_of": len(rows)}
    wrong = truth[..., [1, 0, 2, 3, 4, 5, 6]]
    assert look._right_cube(wrong, truth)["right_cube"] == 0.0
    shard.named[rows] = -1
    assert look._right_cube(truth, truth) == {}
