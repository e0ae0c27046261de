"""Clearance of the arm from itself and from boxes such as its table: capsules about the links.

Off unless the robot file declares capsules. A capsule is a segment with a radius, given in a link's frame; every
pair that is not of neighbouring links, and every capsule that moves against every box, must keep a margin.
Distances of segments are in closed form (Ericson, Real-Time Collision Detection, 5.1.9), for all samples of a plan
at once. A look at the spheres about the capsules comes first and mostly suffices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.motion.kinematics import Attached, Kinematics

CLOSE = 1e-3  # m beyond the margin within which distances are looked at closely
THIRDS = 14  # steps of a ternary search along a segment near a box: to 0.3% of its length


@dataclass(frozen=True, eq=False)
class Capsules:
    """Capsules about the links of one arm, and what they must keep clear of.

    Attributes:
        names: of the links they belong to, one each.
        ends: both ends of the m segments, fixed to their links: the m beginnings, then the m ends.
        radii: [m] m.
        pairs: [2, p] capsules that must keep clear of each other.
        movers: [b] capsules that must keep clear of the boxes.
        boxes: [k, 2, 3] lower and upper corners, base frame.
        margin: m kept between surfaces.
    """

    names: tuple[str, ...]
    ends: Attached
    radii: np.ndarray
    pairs: np.ndarray
    movers: np.ndarray
    boxes: np.ndarray
    margin: float

    def depth(self, kinematics: Kinematics, q: np.ndarray) -> np.ndarray:
        """Return for joints [n, d] how far the margin is violated where it is worst, m [n].

        Positive is too near. Of what is clear by its spheres, the value is a bound and not the distance.
        """
        begins, ends = np.split(kinematics.places(q, self.ends), 2)  # [m, n, 3] each
        middles, halves = (begins + ends) / 2, length(ends - begins) / 2 + self.radii[:, None]
        first, second = self.pairs
        apart = length(middles[first] - middles[second]) - (halves[first] + halves[second])
        near = self.margin + CLOSE
        pair, sample = np.nonzero(apart < near)
        a, b = first[pair], second[pair]
        apart[pair, sample] = (
            segments(begins[a, sample], ends[a, sample], begins[b, sample], ends[b, sample])
            - self.radii[a] - self.radii[b]
        )  # fmt: skip
        clearance = apart.min(axis=0, initial=np.inf)
        for box in self.boxes:
            apart = outside(box, middles[self.movers]) - halves[self.movers]
            mover, sample = np.nonzero(apart < near)
            a = self.movers[mover]
            apart[mover, sample] = segment_to_box(begins[a, sample], ends[a, sample], box) - self.radii[a]
            np.minimum(clearance, apart.min(axis=0), out=clearance)
        return self.margin - clearance

    def nearest(self, kinematics: Kinematics, q: np.ndarray) -> str:
        """Return in words what is nearest to what at joints [d]."""
        begins, ends = np.split(kinematics.places(q[None], self.ends)[:, 0], 2)
        first, second = self.pairs
        apart = segments(begins[first], ends[first], begins[second], ends[second])
        apart = apart - self.radii[first] - self.radii[second]
        names = self.names
        said = [(float(x), f"{names[a]} and {names[b]}") for x, a, b in zip(apart, first, second, strict=True)]
        for i, box in enumerate(self.boxes):
            to_box = segment_to_box(begins[self.movers], ends[self.movers], box) - self.radii[self.movers]
            said += [(float(x), f"{names[a]} and boxes[{i}]") for x, a in zip(to_box, self.movers, strict=True)]
        clearance, what = min(said)
        return f"{what} are {clearance:.3f} m apart"


def length(vectors: np.ndarray) -> np.ndarray:
    """Return the lengths [...] of vectors [..., 3]."""
    return np.sqrt(np.einsum("...i,...i->...", vectors, vectors))


def segments(p1: np.ndarray, p2: np.ndarray, r1: np.ndarray, r2: np.ndarray) -> np.ndarray:
    """Return the distances [n] of segments p1 p2 and r1 r2, [n, 3] each."""
    u, v, w = p2 - p1, r2 - r1, p1 - r1
    uu, vv, uv = (np.einsum("ij,ij->i", x, y) for x, y in ((u, u), (v, v), (u, v)))
    uw, vw = np.einsum("ij,ij->i", u, w), np.einsum("ij,ij->i", v, w)
    uu, vv = np.maximum(uu, 1e-12), np.maximum(vv, 1e-12)
    cross = uu * vv - uv * uv
    s = np.where(cross > 1e-9 * uu * vv, np.clip((uv * vw - uw * vv) / np.maximum(cross, 1e-18), 0.0, 1.0), 0.0)
    t = np.clip((uv * s + vw) / vv, 0.0, 1.0)
    s = np.clip((uv * t - uw) / uu, 0.0, 1.0)
    return length(w + s[:, None] * u - t[:, None] * v)


def outside(box: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the signed distance of points [..., 3] from a box [2, 3], negative inside; convex in the point."""
    beyond = np.maximum(box[0] - points, points - box[1])
    deepest = np.maximum(np.maximum(beyond[..., 0], beyond[..., 1]), beyond[..., 2])
    return length(np.maximum(beyond, 0.0)) + np.minimum(deepest, 0.0)


def segment_to_box(begin: np.ndarray, end: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the least signed distance [n] of segments from a box, or a little less: along a segment it is convex."""
    low, high = np.zeros(len(begin)), np.ones(len(begin))
    way = end - begin
    for _ in range(THIRDS):
        left, right = (2 * low + high) / 3, (low + 2 * high) / 3
        nearer = outside(box, begin + left[:, None] * way) < outside(box, begin + right[:, None] * way)
        low, high = np.where(nearer, low, left), np.where(nearer, right, high)
    # A point at most half the bracket away is the nearest, and distance changes no faster than the point.
    return outside(box, begin + ((low + high) / 2)[:, None] * way) - (high - low) / 2 * length(way)


def capsules(data: dict, kinematics: Kinematics, home: np.ndarray) -> Capsules:
    """Return what the key ``collision`` of a robot file declares.

    Raises:
        ConfigError: a link, a capsule or a box is not as it must be, or the arm at home is too near to something.
    """
    names, begins, ends, radii = list[str](), list[np.ndarray](), list[np.ndarray](), list[float]()
    for name, given in ((name, one) for name, several in data["capsules"].items() for one in _each(several)):
        try:
            a, b, radius = (np.asarray(x, float) for x in given)
            fine = a.shape == b.shape == (3,) and radius.shape == () and float(radius) > 0
            fine = fine and bool(np.isfinite([*a, *b, radius]).all())
        except (TypeError, ValueError):
            fine = False
        if not fine:
            raise ConfigError(f"collision.capsules.{name}: give [[x, y, z], [x, y, z], radius] in its frame, m")
        names.append(name)
        begins.append(a)
        ends.append(b)
        radii.append(float(radius))
    margin = float(data.get("margin", 0.02))
    if not margin >= 0:
        raise ConfigError(f"collision.margin is {margin:g}; give 0 or more m")
    attached = kinematics.attach([*names, *names], np.array([*begins, *ends]).reshape(-1, 3))
    moved_by = attached.moved_by[: len(names)]
    ignored = {frozenset(pair) for pair in data.get("ignore") or []}
    unknown = sorted(set().union(*ignored) - set(names)) if ignored else []
    if unknown:
        raise ConfigError(f"collision.ignore: {unknown[0]} has no capsule; name two that have one")
    pairs = [
        (i, j) for i in range(len(names)) for j in range(i + 1, len(names))
        if abs(moved_by[i] - moved_by[j]) > 1 and frozenset((names[i], names[j])) not in ignored
    ]  # fmt: skip
    try:
        boxes = np.asarray(data.get("boxes") or [], float).reshape(-1, 2, 3)
    except (TypeError, ValueError):
        boxes = np.full((1, 2, 3), np.nan)
    if not (boxes[:, 0] < boxes[:, 1]).all():
        raise ConfigError("collision.boxes: each is two corners [[x, y, z], [x, y, z]] in m, the lower one first")
    # What the first joint turns stands on what the boxes stand on.
    movers = np.array([i for i in range(len(names)) if moved_by[i] > 1], int)
    found = Capsules(
        tuple(names), attached, np.array(radii), np.array(pairs, int).reshape(-1, 2).T, movers, boxes, margin
    )
    if not len(names) or found.depth(kinematics, home[None])[0] > 0:
        near = found.nearest(kinematics, home) if names else "there is no capsule"
        raise ConfigError(f"collision: at home {near}, less than the margin {margin:g}; mend home, capsules or ignore")
    return found


def _each(given: object) -> list:
    """Return the capsules of one link: one or a list of them."""
    several = isinstance(given, list) and given and all(isinstance(x, list) and len(x) == 3 for x in given)
    return list(given) if several and isinstance(given[0][0], list) else [given]  # type: ignore[call-overload,index]
