"""FAST: the quantiser's error bound, the published files, and the refusal of malformed codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.fft import dct
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece
from tokenizers.models import BPE

from udvla_ros.errors import BundleError, TokenError
from udvla_ros.tokens.action import FastTokenizer

RELEASED = Path(__file__).resolve().parents[3] / "shared" / "released"
PUBLISHED = {"fast_calvin_abcd_a10_s50": 10, "fast_calvin_abcd_a5_s50": 5, "fast_libero_all_t10_s50": 10}
published = pytest.mark.skipif(not RELEASED.is_dir(), reason=f"published files are absent: {RELEASED}")

K, D, SCALE = 8, 7, 10


def smooth_chunks(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    chunks = np.clip(np.cumsum(rng.normal(0, 0.1, (count, K, D)), axis=1), -1, 1)
    chunks[..., -1] = np.where(rng.random((count, 1)) < 0.5, -1, 1)
    chunks[0], chunks[1] = 1, -1  # both ends of every zero frequency
    return chunks


@pytest.fixture(scope="module")
def fitted() -> FastTokenizer:
    return FastTokenizer.fit(smooth_chunks(400), vocabulary_size=256, scale=SCALE)


@pytest.fixture(scope="module", params=PUBLISHED)
def released(request: pytest.FixtureRequest) -> FastTokenizer:
    if not RELEASED.is_dir():
        pytest.skip(f"published files are absent: {RELEASED}")
    return FastTokenizer.load(RELEASED / request.param, chunk=PUBLISHED[request.param], dimensions=7)


def check_round_trip(tokenizer: FastTokenizer, chunk: np.ndarray) -> None:
    codes = tokenizer.encode(chunk)
    decoded = tokenizer.decode(codes).astype(np.float64)
    in_frequency = dct(decoded, axis=0, norm="ortho") - dct(chunk, axis=0, norm="ortho")
    assert np.abs(in_frequency).max() <= 0.5 / tokenizer.scale + 1e-6
    bound = np.sqrt(tokenizer.chunk) * 0.5 / tokenizer.scale
    assert np.abs(decoded - chunk).max() <= bound + 1e-6
    assert tokenizer.encode(decoded) == codes
    # The file's own decoder says the same, character by character.
    text = tokenizer.bpe.decode(codes, skip_special_tokens=False)
    assert [ord(c) + tokenizer.min_token for c in text] == tokenizer.coefficients(codes).reshape(-1).tolist()


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_round_trip_stays_within_the_quantiser(fitted: FastTokenizer, seed: int) -> None:
    chunk = smooth_chunks(3, seed)[2] * 0.7
    check_round_trip(fitted, chunk)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_published_files_round_trip(released: FastTokenizer, data: st.DataObject) -> None:
    shape = (released.chunk, released.dimensions)
    check_round_trip(released, data.draw(arrays(np.float64, shape, elements=st.floats(-1, 1, width=32))))


def test_published_lattice_only_gives_what_decodes(released: FastTokenizer) -> None:
    """Byte-level codes hold halves of coefficients: adding up lengths alone would not do."""
    lattice = released.lattice(released.total + 1)
    for seed in range(5):
        scores = np.random.default_rng(seed).normal(0, 5, (lattice.slots, released.vocab_size + 1))
        codes = lattice.best(scores)
        actions = released.decode(codes)
        assert actions.shape == (released.chunk, released.dimensions)
        assert released.expanded_lengths[codes].sum() == released.total


def test_equal_states_of_a_split_character_are_merged(released: FastTokenizer) -> None:
    """Owing nothing, owing any second byte, owing one of the alphabet's last few: no more than that."""
    assert 1 < released._expansion.successors.shape[0] <= 3


def test_lengths_say_what_codes_expand_to(fitted: FastTokenizer) -> None:
    for code, length in enumerate(fitted.expanded_lengths):
        assert length == len(fitted.bpe.decode([code], skip_special_tokens=False)) > 0
    assert fitted.expanded_lengths.max() > 1, "the fit learned no merge"


@given(st.lists(st.integers(-3, 260), max_size=70))
def test_a_sequence_decodes_if_and_only_if_it_is_well_formed(fitted: FastTokenizer, codes: list[int]) -> None:
    known = all(0 <= code < fitted.vocab_size for code in codes)
    if known and fitted.expanded_lengths[codes].sum() == fitted.total:
        assert np.isfinite(fitted.decode(codes)).all()
    else:
        with pytest.raises(TokenError) as caught:
            fitted.decode(codes)
        assert "\n" not in str(caught.value)


def test_dropping_or_adding_a_code_is_an_error(fitted: FastTokenizer) -> None:
    codes = fitted.encode(smooth_chunks(5)[4])
    with pytest.raises(TokenError, match="where the chunk has 56"):
        fitted.decode(codes[:-1])
    with pytest.raises(TokenError, match="where the chunk has 56"):
        fitted.decode([*codes, codes[0]])
    with pytest.raises(TokenError, match=f"code {fitted.vocab_size} in slot 0"):
        fitted.decode([fitted.vocab_size, *codes[1:]])


def test_half_a_coefficient_is_an_error(released: FastTokenizer) -> None:
    pieces = released._expansion.pieces
    lead = next(code for code, piece in enumerate(pieces) if piece == b"\xc2")
    with pytest.raises(TokenError, match="split a coefficient"):
        released.decode([lead] * released.total)


def test_a_coefficient_beyond_the_alphabet_is_named_or_clipped() -> None:
    narrow = FastTokenizer.fit(smooth_chunks(200) * 0.2, vocabulary_size=128, scale=SCALE)
    loud = np.zeros((K, D))
    loud[:, 3] = 1
    with pytest.raises(TokenError, match=r"coefficient 28 \(frequency 0, dimension 3\) is outside"):
        narrow.encode(loud)
    assert narrow.clipped == 0
    decoded = narrow.coefficients(narrow.encode(loud, clip=True))
    assert narrow.clipped == 1
    assert decoded[0, 3] == narrow.max_token
    assert np.count_nonzero(decoded) == 1


def test_coefficients_are_flattened_time_major(fitted: FastTokenizer) -> None:
    chunk = np.zeros((K, D))
    chunk[:, 2] = 1
    characters = fitted._expansion.characters(fitted.encode(chunk)) + fitted.min_token
    assert np.flatnonzero(characters).tolist() == [2]
    assert characters[2] == round(SCALE * np.sqrt(K))


def test_every_coefficient_of_the_fitted_range_has_a_code() -> None:
    """Also those between the extremes that the data never showed."""
    chunks = np.zeros((3, K, 1))
    chunks[1], chunks[2] = 1, -1
    tokenizer = FastTokenizer.fit(chunks, vocabulary_size=64, scale=SCALE)
    for level in np.linspace(-1, 1, 50):
        check_round_trip(tokenizer, np.full((K, 1), level))


def test_max_codes_is_the_longest_of_the_fit(fitted: FastTokenizer) -> None:
    assert fitted.max_codes == max(len(fitted.encode(chunk)) for chunk in smooth_chunks(400))
    assert fitted.max_codes < fitted.total


def test_batches_are_encoded_like_single_chunks(fitted: FastTokenizer) -> None:
    chunks = smooth_chunks(20)
    assert fitted.encode_batch(chunks) == [fitted.encode(chunk) for chunk in chunks]


def test_unfit_data_is_refused() -> None:
    with pytest.raises(TokenError, match=r"\[N, K, D\]"):
        FastTokenizer.fit(np.zeros((8, 7)))
    with pytest.raises(TokenError, match="normalise"):
        FastTokenizer.fit(np.full((2, K, D), 1.5))
    with pytest.raises(TokenError, match="do not fit 16 codes"):
        FastTokenizer.fit(smooth_chunks(10), vocabulary_size=16)
    with pytest.raises(TokenError, match="NaN"):
        FastTokenizer.fit(np.full((2, K, D), np.nan))


def test_a_chunk_of_the_wrong_shape_is_refused(fitted: FastTokenizer) -> None:
    with pytest.raises(TokenError, match=r"\[7, 7\] where the tokeniser has \[8, 7\]"):
        fitted.encode(np.zeros((7, 7)))
    with pytest.raises(TokenError, match="NaN"):
        fitted.encode(np.full((K, D), np.inf))


def test_the_files_round_trip(fitted: FastTokenizer, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    config = json.loads((tmp_path / "processor_config.json").read_text())
    assert config == {
        "scale": SCALE,
        "vocab_size": fitted.vocab_size,
        "min_token": fitted.min_token,
        "time_horizon": K,
        "action_dim": D,
    }
    loaded = FastTokenizer.load(tmp_path)
    chunk = smooth_chunks(9)[8]
    assert loaded.encode(chunk) == fitted.encode(chunk)
    assert (loaded.max_codes, loaded.max_token) == (fitted.max_codes, fitted.max_token)
    np.testing.assert_array_equal(loaded.decode(loaded.encode(chunk)), fitted.decode(fitted.encode(chunk)))


def test_parts_that_disagree_are_refused(fitted: FastTokenizer, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"processor_config\.json cannot be read"):
        FastTokenizer.load(tmp_path)
    fitted.save(tmp_path)
    with pytest.raises(BundleError, match="time_horizon 8 where 10 is wanted"):
        FastTokenizer.load(tmp_path, chunk=10)
    path = tmp_path / "processor_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"vocab_size": 1025}))
    with pytest.raises(BundleError, match=f"{fitted.vocab_size} codes but processor_config.json says 1025"):
        FastTokenizer.load(tmp_path)
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "scale"}))
    with pytest.raises(BundleError, match="lacks scale"):
        FastTokenizer.load(tmp_path)
    path.write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="is not a tokeniser file"):
        FastTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"has no tokenizer\.json"):
        FastTokenizer.load(tmp_path)


@published
def test_the_published_configs_leave_the_shape_open(tmp_path: Path) -> None:
    folder = RELEASED / "fast_calvin_abcd_a10_s50"
    with pytest.raises(BundleError, match="leaves time_horizon open"):
        FastTokenizer.load(folder)
    loaded = FastTokenizer.load(folder, chunk=10, dimensions=7)
    assert loaded.max_codes is None
    loaded.save(tmp_path)
    assert FastTokenizer.load(tmp_path).encode(np.zeros((10, 7))) == loaded.encode(np.zeros((10, 7)))


@published
def test_a_vocabulary_with_a_hole_names_the_coefficient(tmp_path: Path) -> None:
    """The library itself would drop such a character without a word."""
    shutil.copytree(RELEASED / "fast_calvin_abcd_a5_s50", tmp_path / "holed")
    path = tmp_path / "holed" / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = data["model"]["vocab"]
    # Byte 0x80, the second half of character 128 (coefficient 16): take it and the merges away.
    data["model"]["merges"] = []
    vocabulary["no such character"] = vocabulary.pop("\u0122")
    path.write_text(json.dumps(data), encoding="utf-8")
    holed = FastTokenizer.load(tmp_path / "holed", chunk=5, dimensions=7)
    chunk = np.zeros((5, 7))
    check_round_trip(holed, chunk)
    chunk[:, 0] = 16 / 50 / np.sqrt(5)
    with pytest.raises(TokenError, match="coefficient 16 has no code"):
        holed.encode(chunk)


def test_a_file_that_is_no_fast_tokeniser_is_refused() -> None:
    letters = Tokenizer(BPE({"a": 0, "b": 1}, []))
    with pytest.raises(TokenError, match="alphabet"):
        FastTokenizer(letters, SCALE, 0, 2, K, D)
    other = Tokenizer(BPE({chr(0): 0, chr(1): 1}, []))
    other.decoder = WordPiece()
    with pytest.raises(TokenError, match="decodes by 'WordPiece'"):
        FastTokenizer(other, SCALE, 0, 2, K, D)
