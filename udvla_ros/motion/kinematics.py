"""Forward and inverse kinematics of the arm from its URDF (Pinocchio)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pinocchio as pin

from udvla_ros.errors import ConfigError
from udvla_ros.motion.errors import Unreachable

POSITION_TOLERANCE = 1e-5  # m, aimed at
ROTATION_TOLERANCE = 1e-4  # rad, aimed at
ENOUGH = 10.0  # times these tolerances that are taken when the iterations are used up
LEVER = 0.3  # m that count as one radian, so that both errors weigh alike at the TCP
DAMPING = 0.05  # greatest damping factor, reached at a singularity
SINGULAR = 0.05  # least singular value below which damping sets in
LONGEST_STEP = 0.3  # rad per iteration
CENTRING = 0.5  # pull of a redundant arm towards the middle of its joints' ranges, at most, by the step it goes along


class Attached(NamedTuple):
    """Points fixed to links: which of the arm's joints, counted from 1 at the base, is the last to move each [m].

    ``points`` [m, 3] are in the frame of that joint, or in the base frame where none does.
    """

    moved_by: np.ndarray
    points: np.ndarray


class Kinematics:
    """Kinematics of the joints of one arm between the URDF's root and its TCP frame.

    Args:
        urdf: file to read; meshes and inertias are not needed.
        joints: the arm's joints in the order of every joint vector; all others are held at zero.
        tcp_frame: name of a link or frame.
        base_frame: frame poses are expressed in.

    Attributes:
        urdf: the file that was read.

    Raises:
        ConfigError: the file, a joint or a frame is missing.
    """

    def __init__(self, urdf: str | Path, joints: Sequence[str], tcp_frame: str, base_frame: str) -> None:
        self.urdf = Path(urdf)
        try:
            model = pin.buildModelFromUrdf(str(urdf))
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"urdf: {urdf} cannot be read ({str(error).strip().splitlines()[0]})") from None
        names = list(model.names)
        for joint in joints:
            if joint not in names:
                raise ConfigError(f"joints: {joint} is not in {Path(urdf).name}, which has {', '.join(names[1:])}")
        others = [model.getJointId(name) for name in names[1:] if name not in joints]
        model = pin.buildReducedModel(model, others, pin.neutral(model)) if others else model
        for key, frame in (("tcp_frame", tcp_frame), ("base_frame", base_frame)):
            if not model.existFrame(frame):
                raise ConfigError(f"{key}: {frame} is not a frame of {Path(urdf).name}")
        if model.nq != len(joints):
            raise ConfigError(f"joints: only joints with one coordinate are supported in {Path(urdf).name}")
        self.joints = tuple(joints)
        self._model, self._data = model, model.createData()
        # URDFs usually list joints in kinematic order; where one does not, vectors are permuted here, once.
        self._order = np.array([model.joints[model.getJointId(j)].idx_q for j in joints])
        self._inverse_order = np.argsort(self._order)
        self._tcp = model.getFrameId(tcp_frame)
        pin.framesForwardKinematics(model, self._data, pin.neutral(model))
        base = self._data.oMf[model.getFrameId(base_frame)].copy()
        if self._support(model.getFrameId(base_frame)):
            raise ConfigError(f"base_frame: {base_frame} moves with the joints; name a frame before the first joint")
        self._base_inverse = base.inverse()
        self.lower = model.lowerPositionLimit[self._order].copy()
        self.upper = model.upperPositionLimit[self._order].copy()
        self.velocity = model.velocityLimit[self._order].copy()
        self._chain = self._constants()

    def _support(self, frame: int) -> list[int]:
        """Return the joints (of the model) that move ``frame``, root first."""
        joint, found = int(self._model.frames[frame].parentJoint), list[int]()
        while joint > 0:
            found.insert(0, joint)
            joint = self._model.parents[joint]
        return found

    def _constants(self) -> list[tuple]:
        """Return per joint of the chain, from the tool inwards, (column, [A B C t] [3, 10]).

        The joint turns by A + sin(q) B + (1 - cos(q)) C (Rodrigues) and shifts by t.
        """
        chain = list[tuple]()
        for joint in self._support(self._tcp):
            axis = np.asarray(self._data.joints[joint].S).reshape(6, -1)[:, 0]
            if np.linalg.norm(axis[3:]) < 0.5:
                raise ConfigError(f"joints: {self._model.names[joint]} slides; only turning joints are supported")
            x, y, z = axis[3:]
            k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
            placement = self._model.jointPlacements[joint]
            column = int(np.nonzero(self._order == self._model.joints[joint].idx_q)[0][0])
            r = placement.rotation
            chain.insert(0, (column, np.hstack([r, r @ k, r @ k @ k, placement.translation[:, None]])))
        return chain

    def forward(self, q: np.ndarray) -> np.ndarray:
        """Return the pose [4, 4] of the TCP in the base frame for joints [d] (rad)."""
        pin.forwardKinematics(self._model, self._data, np.asarray(q, float)[self._inverse_order])
        pose = pin.updateFramePlacement(self._model, self._data, self._tcp)
        return (self._base_inverse * pose).homogeneous

    def positions(self, q: np.ndarray) -> np.ndarray:
        """Return TCP positions [n, 3] in the base frame for many joint vectors [n, d] at once."""
        tool = self._model.frames[self._tcp].placement.translation
        points, turned = np.broadcast_to(tool[:, None], (3, len(q))), np.ones((10, len(q)))
        sine, cosine = np.sin(q.T), 1.0 - np.cos(q.T)
        for column, turns in self._chain:  # from the tool inwards only vectors turn, no matrices
            turned[:3] = points
            np.multiply(points, sine[column], out=turned[3:6])
            np.multiply(points, cosine[column], out=turned[6:9])
            points = turns @ turned
        return (self._base_inverse.rotation @ points + self._base_inverse.translation[:, None]).T

    def attach(self, frames: Sequence[str], points: np.ndarray) -> Attached:
        """Return points [m, 3] given in one named frame each.

        Raises:
            ConfigError: a frame is not one of the arm's.
        """
        moved_by, attached = [], []
        for name, point in zip(frames, points, strict=True):
            if not self._model.existFrame(name):
                raise ConfigError(f"{name} is not a frame of the URDF")
            support = self._support(self._model.getFrameId(name))
            if support != self._support(self._tcp)[: len(support)]:
                raise ConfigError(f"{name} is not on the way to the TCP")
            at_joint = self._model.frames[self._model.getFrameId(name)].placement * np.asarray(point, float)
            moved_by.append(len(support))
            attached.append(at_joint if support else self._base_inverse * at_joint)
        return Attached(np.array(moved_by), np.array(attached))

    def places(self, q: np.ndarray, attached: Attached) -> np.ndarray:
        """Return where attached points [m] are, [m, n, 3] in the base frame, for many joint vectors [n, d] at once."""
        count = len(q)
        sine, cosine = np.sin(q.T), 1.0 - np.cos(q.T)
        places = np.repeat(attached.points.T[:, :, None], count, axis=2)  # [3, m, n]
        for joint, (column, turns) in zip(range(len(self._chain), 0, -1), self._chain, strict=True):
            moved = np.nonzero(attached.moved_by >= joint)[0]
            if len(moved):
                part = places[:, moved]
                turned = np.concatenate([part, part * sine[column], part * cosine[column], np.ones_like(part[:1])])
                places[:, moved] = (turns @ turned.reshape(10, -1)).reshape(3, len(moved), count)
        base, moved = self._base_inverse, np.nonzero(attached.moved_by > 0)[0]
        part = places[:, moved].reshape(3, -1)
        places[:, moved] = (base.rotation @ part + base.translation[:, None]).reshape(3, -1, count)
        return places.transpose(1, 2, 0)

    def jacobian(self, q: np.ndarray) -> np.ndarray:
        """Return the geometric Jacobian [6, d] of the TCP (linear over angular), in base-frame axes."""
        jacobian = pin.computeFrameJacobian(
            self._model,
            self._data,
            np.asarray(q, float)[self._inverse_order],
            self._tcp,
            pin.LOCAL_WORLD_ALIGNED,
        )[:, self._order]
        turn = self._base_inverse.rotation
        return np.vstack([turn @ jacobian[:3], turn @ jacobian[3:]])

    def inverse(
        self,
        pose: np.ndarray,
        q_seed: np.ndarray,
        lower: np.ndarray | None = None,
        upper: np.ndarray | None = None,
        iterations: int = 60,
    ) -> np.ndarray:
        """Return the joints [d] near ``q_seed`` [d] whose TCP is at ``pose`` [4, 4].

        Damped least squares with damping that grows towards a singularity (Nakamura and Hanafusa 1986).
        Joints that would leave [lower, upper] are held at the bound while the others go on; a redundant arm
        uses its spare freedom to stay away from the bounds. A near seed finds the near solution.

        Raises:
            Unreachable: the pose is not met within 0.1 mm and 1 mrad.
        """
        lower = self.lower if lower is None else lower
        upper = self.upper if upper is None else upper
        lo, up = lower[self._inverse_order], upper[self._inverse_order]
        q = np.clip(np.asarray(q_seed, float)[self._inverse_order], lo, up)
        goal = self._base_inverse.inverse() * pin.SE3(np.ascontiguousarray(pose, float))
        for _ in range(iterations):
            error, miss = self._error(q, goal)
            if miss < 1.0:
                return q[self._order]
            q = np.clip(q + self._step(q, error, lo, up), lo, up)
        if self._error(q, goal)[1] < ENOUGH:
            return q[self._order]
        raise Unreachable(self._explain(pose, q[self._order], lower, upper))

    def _error(self, q: np.ndarray, goal: pin.SE3) -> tuple[np.ndarray, float]:
        """Return the error [6], position weighed by ``LEVER``, and its size in tolerances; sets the Jacobians."""
        pin.computeJointJacobians(self._model, self._data, q)
        here = pin.updateFramePlacement(self._model, self._data, self._tcp)
        shift, turn = goal.translation - here.translation, pin.log3(goal.rotation @ here.rotation.T)
        miss = max(np.abs(shift).max() / POSITION_TOLERANCE, np.abs(turn).max() / ROTATION_TOLERANCE)
        return np.concatenate([shift / LEVER, turn]), float(miss)

    def _step(self, q: np.ndarray, error: np.ndarray, lo: np.ndarray, up: np.ndarray) -> np.ndarray:
        """Return the damped step [nv] that lessens the error, with joints at their bounds left out."""
        jacobian = pin.getFrameJacobian(self._model, self._data, self._tcp, pin.LOCAL_WORLD_ALIGNED)
        jacobian[:3] /= LEVER
        free = np.ones(len(q), bool)
        for _ in range(len(q)):
            j = jacobian * free
            gram = j @ j.T
            least, damping = np.sqrt(max(np.linalg.eigvalsh(gram)[0], 0.0)), 1e-10
            if least < SINGULAR:
                # Damping also fades with the error, so that it slows the way but does not shift the goal.
                damping += DAMPING**2 * (1 - (least / SINGULAR) ** 2) * min(1.0, float(error @ error))
            gram[np.diag_indices(6)] += damping
            step = j.T @ np.linalg.solve(gram, error)
            if len(q) > 6:
                # In proportion to the step: an arm that is to stay does not wander, one that creeps does not swing.
                away = free * (CENTRING * np.abs(step).max()) * (lo + up - 2 * q) / (up - lo)
                step = step + away - j.T @ np.linalg.solve(gram, j @ away)
            step *= min(1.0, LONGEST_STEP / max(np.abs(step).max(), 1e-12))
            stuck = free & (((step < 0) & (q <= lo)) | ((step > 0) & (q >= up)))
            if not stuck.any():
                break
            free &= ~stuck
        return step

    def _explain(self, pose: np.ndarray, q: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> str:
        here = self.forward(q)
        short = np.linalg.norm(pose[:3, 3] - here[:3, 3]) * 1000
        turn = np.degrees(np.linalg.norm(pin.log3(pose[:3, :3] @ here[:3, :3].T)))
        at = [
            j
            for j, value, lo, up in zip(self.joints, q, lower, upper, strict=True)
            if min(value - lo, up - value) < 1e-6
        ]
        x, y, z = pose[:3, 3]
        return (
            f"the TCP cannot reach ({x:.3f}, {y:.3f}, {z:.3f}) m: {short:.1f} mm and {turn:.1f} degrees short"
            + (f", {', '.join(at)} at its limit" if at else "")
            + "; ask for a nearer pose"
        )
