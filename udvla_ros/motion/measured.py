"""What the joint states say of the arm, put together by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from udvla_ros.motion.robot import RobotDescription

AHEAD = 0.02  # s in the future that no stamp can be where clocks agree
OLD = 0.5  # s of age that no stamp has where clocks agree and the driver keeps up
ROW, BEHIND_ROW = 5, 50  # stamps in a row that are no accident

Floats = Sequence[float] | np.ndarray


class Thresholds(Protocol):
    """What :meth:`Measured.why_not_still` needs to know."""

    @property
    def still(self) -> float:
        """Greatest joint speed of an arm that stands, rad/s."""

    @property
    def joint_state_timeout(self) -> float:
        """Greatest age of joint states, s."""


class DriverClock:
    """How the stamps of the joint states fit the arbiter's clock. A message takes time, so they may only be older."""

    def __init__(self) -> None:
        self.offset: float | None = None  # s of the newest stamp after its arrival; None: never stamped
        self._ahead = self._behind = 0  # stamps in a row

    def hear(self, stamp: float, now: float) -> None:
        """Take the stamp of a joint state, 0 where it has none."""
        if stamp > 0.0:
            self.offset = stamp - now
            self._ahead = self._ahead + 1 if self.offset > AHEAD else 0
            self._behind = self._behind + 1 if self.offset < -OLD else 0

    def trouble(self, at_once: bool = False) -> str:
        """Return why commands stamped by the arbiter's clock cannot be relied on, or nothing.

        Args:
            at_once: by the newest stamp alone; else one that is off may be an accident.
        """
        rows = (1, 1) if at_once else (ROW, BEHIND_ROW)
        if self.offset is None or (self._ahead < rows[0] and self._behind < rows[1]):
            return ""
        where = "ahead of" if self.offset > 0 else "behind"
        return f"joint states are stamped {abs(self.offset):.2f} s {where} this clock; synchronise the machines' clocks"


class Measured:
    """The latest measured joints; arm and gripper may be published apart and in any order.

    Attributes:
        q, qd: [d] rad, rad/s; NaN where never heard.
        gripper: gripper joint, NaN where never heard; ``open`` for a gripper without feedback.
        gripper_time: when it was last heard, s; infinity for a gripper without feedback.
        clock: that of the driver's stamps.
    """

    def __init__(self, robot: RobotDescription, still: float = 0.05) -> None:
        self._robot, self._still = robot, still
        self._index = {name: i for i, name in enumerate(robot.joints)}
        self.forget()

    def forget(self) -> None:
        """Drop everything heard."""
        gripper, size = self._robot.gripper, len(self._index)
        self.q, self.qd, self._times = np.full(size, np.nan), np.full(size, np.nan), np.full(size, -np.inf)
        self.gripper = 0.0 if gripper is None else np.nan if gripper.feedback else gripper.open
        self._moved, self.clock = -np.inf, DriverClock()
        self.gripper_time = -np.inf if gripper is not None and gripper.feedback else np.inf

    @property
    def time(self) -> float:
        """When the arm's joint heard longest ago was heard, s."""
        return float(self._times.min())

    def update(self, names: Sequence[str], q: Floats, qd: Floats | None, now: float) -> None:
        """Take joint states; joints of other devices and values that are not finite are passed over."""
        speeds = qd if qd is not None and len(qd) == len(q) else None
        for k, (name, value) in enumerate(zip(names, q, strict=False)):
            if not np.isfinite(value):
                continue
            i = self._index.get(name)
            if i is None:
                if self._robot.gripper is not None and name == self._robot.gripper.joint:
                    self.gripper, self.gripper_time = float(value), now
                continue
            if speeds is not None and np.isfinite(speeds[k]):
                self.qd[i] = speeds[k]
            elif now > self._times[i]:
                self.qd[i] = (value - self.q[i]) / (now - self._times[i])
            self.q[i], self._times[i] = value, now
        if not np.abs(self.qd).max() < self._still:
            self._moved = now

    def still_for(self, now: float) -> float:
        """Return for how long the arm has been seen to stand, s."""
        return min(now, self.time) - self._moved

    def why_no_state(self, now: float, thresholds: Thresholds) -> str:
        """Return why it is not known where the arm is, or nothing."""
        missing = [name for name, i in self._index.items() if not np.isfinite(self.q[i])]
        if np.isnan(self.gripper) and self._robot.gripper is not None:
            missing.append(self._robot.gripper.joint)
        if missing:
            return f"no joint state yet of {', '.join(missing)}; check the joint_states topic"
        if now - self.time > thresholds.joint_state_timeout:
            return f"the joint states are {now - self.time:.1f} s old; check the joint_states topic"
        return ""

    def why_not_still(self, now: float, thresholds: Thresholds) -> str:
        """Return why the arm cannot be taken to stand still where it is measured, or nothing."""
        unknown = self.why_no_state(now, thresholds)
        if unknown:
            return unknown
        if not np.abs(self.qd).max() < thresholds.still:
            return "the arm is moving; wait until it stands still"
        beyond = np.maximum(self._robot.limits.hard_lower - self.q, self.q - self._robot.limits.hard_upper)
        if beyond.max() > 0:
            return f"{self._robot.joints[int(beyond.argmax())]} is beyond its limits; move it back by hand"
        return ""
