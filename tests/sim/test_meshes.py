"""Thinning keeps the shape, drops faces, and survives an unwritable cache."""

import numpy as np
import pytest
import trimesh

from udvla_ros.sim import meshes


@pytest.fixture
def ball(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "ball.stl"
    trimesh.creation.icosphere(subdivisions=4, radius=2.0).export(path)
    return path


def test_thin_keeps_the_extent(ball):
    vertices, faces = meshes.thin(ball, 300)
    assert len(faces) <= 310
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 2.0, rtol=0.05)
    assert faces.max() == len(vertices) - 1


def test_small_meshes_stay(ball, tmp_path):
    path = tmp_path / "box.stl"
    trimesh.creation.box().export(path)
    assert len(meshes.thin(path, 300)[1]) == 12


def test_cache_is_used(ball, monkeypatch):
    first = meshes.thinned(ball, 300)
    monkeypatch.setattr(meshes, "thin", lambda *_: pytest.fail("thinned again"))
    again = meshes.thinned(ball, 300)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_other_face_count_is_another_entry(ball):
    assert len(meshes.thinned(ball, 300)[1]) > len(meshes.thinned(ball, 100)[1])


def test_unwritable_cache_is_no_error(ball, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(meshes.thinned(ball, 300)[1]) <= 310
