"""Sheets and films have the pictures in their places, and read back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from udvla_ros.evaluation import pictures


@pytest.fixture
def seen(random_images):
    return {"front": random_images(), "wrist": random_images(32, 32)}


def test_pixels_stay_hard_when_enlarged(random_images):
    image = random_images(4, 5)
    large = pictures.enlarge(image, 6)
    assert large.shape == (24, 30, 3)
    assert np.array_equal(large[::6, ::6], image) and np.array_equal(large[5::6, 5::6], image)


def test_a_row_shows_seen_predicted_and_came_in_this_order(seen, random_images):
    predicted = {"front": random_images(), "wrist": random_images(32, 32)}
    came = {"front": random_images(), "wrist": random_images(32, 32)}
    sheet = pictures.contact_sheet([pictures.Row("a row", seen, predicted, came)], scale=2)
    top = 2 * pictures.BAND
    width = 2 * (64 + 32) + pictures.GAP
    for column, images in enumerate((seen, predicted, came)):
        left = column * (width + 4 * pictures.GAP)
        assert np.array_equal(sheet[top : top + 96 : 2, left : left + 128 : 2], images["front"])
        wrist = left + 128 + pictures.GAP
        assert np.array_equal(sheet[top : top + 64 : 2, wrist : wrist + 64 : 2], images["wrist"])


def test_without_foresight_the_place_stays_pale(seen):
    sheet = pictures.contact_sheet([pictures.Row("off", seen, {}, seen)], scale=1)
    left = 64 + 32 + pictures.GAP + 4 * pictures.GAP
    assert (sheet[2 * pictures.BAND + 10, left + 10] == pictures.PALE).all()


def test_no_rows_no_sheet():
    with pytest.raises(ValueError):
        pictures.contact_sheet([])


def test_long_text_fits_its_band():
    band = pictures.text_band("word " * 60, 400)
    assert band.shape == (pictures.BAND, 400, 3)
    assert (band < 128).any()


def test_a_film_reads_back(tmp_path, seen, random_images):
    sizes = pictures.sizes_of(seen)
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    frames = []
    for colour in colours:
        now = {"front": pictures.blank(48, 64, colour), "wrist": pictures.blank(32, 32, colour)}
        frames.append(pictures.video_frame(now, seen, "text", list(seen), sizes, scale=2))
    assert all(side % 2 == 0 for side in frames[0].shape[:2])
    path = pictures.write_film(tmp_path / "film.mp4", iter(frames), 10.0)
    assert path is not None
    capture = cv2.VideoCapture(str(path))
    read = []
    while True:
        good, frame = capture.read()
        if not good:
            break
        read.append(frame[..., ::-1])
    capture.release()
    if path.suffix == ".mp4":
        assert len(read) == 3
        for frame, colour in zip(read, colours, strict=True):
            assert np.abs(frame[60, 60].astype(int) - colour).max() < 30


def test_a_gif_reads_back(tmp_path, random_images):
    image = pytest.importorskip("PIL.Image")
    path = pictures.write_gif(tmp_path / "film.gif", [random_images() for _ in range(3)], 10.0)
    with image.open(path) as film:
        assert film.n_frames == 3 and film.size == (32, 24)


def test_no_frames_no_film(tmp_path):
    assert pictures.write_film(tmp_path / "film.mp4", [], 10.0) is None
    assert not (tmp_path / "film.mp4").exists()
