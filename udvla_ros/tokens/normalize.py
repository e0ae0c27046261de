"""Per-dimension quantile normalisation of actions, in the published ``norm_stats.json`` format.

``2 (a - q01) / (q99 - q01) - 1``, clipped to [-1, 1] (OpenVLA, arXiv 2406.09246; kept by UD-VLA).
The units of the raw side are those of the action (metres, radians, gripper command).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from udvla_ros.errors import BundleError, TokenError

FILE = "norm_stats.json"


class QuantileNormalizer:
    """Maps actions [..., D] to [-1, 1] and back, each dimension by its own 1 % and 99 % quantile.

    A constant dimension (q99 == q01) maps to 0 and back to its constant.

    Raises :class:`TokenError` for quantiles that are not finite, not one-dimensional and equally
    long, or that have q01 > q99.
    """

    def __init__(
        self, q01: ArrayLike, q99: ArrayLike, mean: ArrayLike | None = None, std: ArrayLike | None = None
    ) -> None:
        self.q01 = _vector("q01", q01)
        self.q99 = _vector("q99", q99, len(self.q01))
        wrong = np.flatnonzero(self.q01 > self.q99)
        if wrong.size:
            i = int(wrong[0])
            raise TokenError(
                f"dimension {i} has q01 {self.q01[i]:g} above q99 {self.q99[i]:g}: "
                "swap them, or fit the normaliser again"
            )
        # Only carried along for the file; the mapping does not use them.
        self.mean = (self.q01 + self.q99) / 2 if mean is None else _vector("mean", mean, len(self.q01))
        self.std = (self.q99 - self.q01) / 2 if std is None else _vector("std", std, len(self.q01))

    @property
    def dimensions(self) -> int:
        """Number of action dimensions D."""
        return len(self.q01)

    @classmethod
    def fit(
        cls,
        actions: ArrayLike,
        floor: ArrayLike = 0.0,
        ranges: Mapping[int, tuple[float, float]] | None = None,
    ) -> QuantileNormalizer:
        """Measure the quantiles of actions [N, D].

        ``floor`` (one number, or one per dimension, in the action's units) is the least width q99 - q01
        of a dimension: a narrower one, say a rotation that is noise around zero, gets a symmetric
        +- floor/2 instead of having its noise blown up to full scale. The centre is zero where that
        covers the data (so that "no motion" stays exactly 0), the middle of the quantiles elsewhere.

        ``ranges`` sets (q01, q99) of dimensions whose range is known, such as a gripper command: one
        that closes in fewer than 1 % of the steps would otherwise be taken for a constant.
        """
        actions = np.asarray(actions, dtype=np.float64)
        if actions.ndim != 2 or actions.size == 0:
            raise TokenError(f"actions have shape {actions.shape}: give [N, D] with at least one row")
        _finite("actions", actions)
        dimensions = actions.shape[1]
        low, high = np.quantile(actions, [0.01, 0.99], axis=0)
        try:
            width = np.broadcast_to(np.asarray(floor, dtype=np.float64), (dimensions,))
        except ValueError:
            raise TokenError(f"floor has shape {np.shape(floor)}: give one number, or {dimensions}") from None
        if not np.isfinite(width).all() or (width < 0).any():
            raise TokenError("floor is negative or not finite: give a width of 0 or more")
        narrow = high - low < width
        around_zero = np.maximum(np.abs(low), np.abs(high)) <= width / 2
        centre = np.where(around_zero, 0.0, (low + high) / 2)
        low, high = np.where(narrow, centre - width / 2, low), np.where(narrow, centre + width / 2, high)
        for i, (a, b) in (ranges or {}).items():
            if not 0 <= i < dimensions:
                raise TokenError(
                    f"a range is set for dimension {i}: actions have dimensions 0..{dimensions - 1}"
                )
            low[i], high[i] = a, b
        return cls(low, high, actions.mean(axis=0), actions.std(axis=0))

    def normalize(self, actions: ArrayLike) -> NDArray[np.float32]:
        """[..., D] in action units -> [..., D] float32 in [-1, 1], clipped."""
        actions = self._actions(actions)
        width = self.q99 - self.q01
        constant = width == 0
        scaled = 2 * (actions - self.q01) / np.where(constant, 1.0, width) - 1
        return np.where(constant, 0.0, np.clip(scaled, -1, 1)).astype(np.float32)

    def denormalize(self, actions: ArrayLike) -> NDArray[np.float32]:
        """[..., D] normalised -> [..., D] float32 in action units.

        Values beyond +-1 are carried through, not clipped: they are what the quantiser's error leaves.
        """
        actions = self._actions(actions)
        return ((actions + 1) / 2 * (self.q99 - self.q01) + self.q01).astype(np.float32)

    def save(self, path: str | Path, name: str) -> Path:
        """Write ``norm_stats.json`` (``path`` is the file or its folder) under data set ``name``."""
        path = _file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        stats = {key: getattr(self, key).tolist() for key in ("mean", "std", "q01", "q99")}
        path.write_text(json.dumps({"norm_stats": {name: stats}}, indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path, name: str | None = None) -> QuantileNormalizer:
        """Read ``norm_stats.json`` (``path`` is the file or its folder).

        ``name`` picks the data set; it may be left out where the file has only one.
        Raises :class:`BundleError` where the file is absent, not of this format, or ambiguous.
        """
        path = _file(path)
        try:
            sets = json.loads(path.read_text(encoding="utf-8"))["norm_stats"]
            names = list(sets)
        except OSError as error:
            raise BundleError(
                f"{path} cannot be read ({error.strerror}): give the folder of norm_stats.json"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise BundleError(
                f'{path} is not {{"norm_stats": {{name: ...}}}}: fit the normaliser again'
            ) from None
        if name is None and len(names) != 1:
            raise BundleError(f"{path} has {len(names)} data sets ({', '.join(names)}): name one of them")
        name = names[0] if name is None else name
        if name not in names:
            raise BundleError(f"{path} has no data set {name!r}: it has {', '.join(names)}")
        stats = sets[name]
        try:
            return cls(stats["q01"], stats["q99"], stats.get("mean"), stats.get("std"))
        except (KeyError, TypeError, AttributeError):
            raise BundleError(f"{path}: {name!r} lacks q01 or q99: fit the normaliser again") from None
        except TokenError as error:
            raise BundleError(f"{path}: {name!r}: {error}") from None

    def _actions(self, actions: ArrayLike) -> NDArray[np.float64]:
        actions = np.asarray(actions, dtype=np.float64)
        if actions.ndim == 0 or actions.shape[-1] != self.dimensions:
            raise TokenError(
                f"actions of shape {actions.shape} do not fit statistics of {self.dimensions} dimensions: "
                "use the norm_stats.json of this robot's data"
            )
        _finite("actions", actions)
        return actions


def _vector(name: str, values: ArrayLike | Sequence[float], length: int | None = None) -> NDArray[np.float64]:
    try:
        array = np.array(values, dtype=np.float64)  # a copy: the caller's array may change later
    except (TypeError, ValueError):
        raise TokenError(f"{name} is not a list of numbers: fit the normaliser again") from None
    if array.ndim != 1 or array.size == 0 or (length is not None and len(array) != length):
        wanted = "one number per dimension" if length is None else f"{length} numbers like q01"
        raise TokenError(f"{name} has shape {array.shape}: give {wanted}")
    _finite(name, array)
    return array


def _finite(name: str, array: NDArray[np.float64]) -> None:
    bad = np.argwhere(~np.isfinite(array))
    if bad.size:
        place = ", ".join(str(int(i)) for i in bad[0])
        raise TokenError(f"{name}[{place}] is {array[tuple(bad[0])]}: remove or mend that entry")


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".json" else path / FILE
