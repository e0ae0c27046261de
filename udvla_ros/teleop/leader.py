"""A leader arm's joints as goals of the arm, engaged where both are: the arm never jumps to the leader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from udvla_ros.errors import ConfigError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.teleop.wish import REST, Wish

FILE_KEYS = {"name", "joints", "scale", "gripper"}
PICK_UP = 0.1  # closed fraction within which the leader's gripper must come before the arm's follows it
SMOOTHING = 0.03  # s over which the leader's velocity is averaged
TURN = 6.6  # rad that no leader joint turns to from its zero
OTHER_UNITS = "in degrees, give 'scale: 0.01745' in the leader file; in -100..100, each joint's range in rad / 200"


class Leader:
    """What the leader arm said last, as an operator's wish.

    Args:
        robot: the arm that follows.
        joints: robot joint -> leader joint. All of the robot's joints are needed.
        scale: [d] robot radians per unit of the leader, radians where it is 1; negative turns the other way round.
        gripper: (leader joint, open, closed) or None.
        timeout: s of silence after which the leader is taken as gone.
        jump: rad a leader joint may move from one message to the next; more is a fault of its encoders.
    """

    def __init__(
        self,
        robot: RobotDescription,
        joints: Mapping[str, str],
        scale: Sequence[float] | np.ndarray,
        gripper: tuple[str, float, float] | None = None,
        timeout: float = 0.2,
        jump: float = 0.3,
    ) -> None:
        missing = [name for name in robot.joints if name not in joints]
        if missing:
            raise ConfigError(f"leader: no joint of the leader moves {', '.join(missing)}; name one for each")
        self.robot, self.timeout, self.jump = robot, timeout, jump
        self._names = [joints[name] for name in robot.joints]
        self.scale = np.asarray(scale, float)
        if self.scale.shape != (len(robot.joints),) or not np.isfinite(self.scale).all() or not self.scale.all():
            raise ConfigError(f"leader: scale needs {len(robot.joints)} numbers that are not 0, one per joint")
        self._unit = np.minimum(np.abs(self.scale), 1.0)  # rad, at most, of one of the leader's numbers
        if (gripper is not None and not np.isfinite(gripper[1:]).all()) or (gripper and gripper[1] == gripper[2]):
            raise ConfigError("leader: the gripper's open and closed must be two different finite numbers")
        self._gripper = gripper
        self.fault = ""
        self._q = self._qd = np.full(len(robot.joints), np.nan)
        self._fraction: float | None = None
        self._heard = -np.inf
        self._origin: tuple[np.ndarray, np.ndarray] | None = None
        self._picked = False

    def feed(self, names: Sequence[str], q: Sequence[float], now: float) -> None:
        """Take joint states, by name; what is wrong with them is in ``fault`` and lets go."""
        at = dict(zip(names, q, strict=False))
        missing = [name for name in self._names if name not in at]
        if missing:
            self._fail(f"the leader does not say where {', '.join(missing)} is")
            return
        new = np.array([at[name] for name in self._names], float)
        if not np.isfinite(new).all():
            self._fail("the leader sent a joint that is not finite")
            return
        gone, angles = self.silent(now), self._unit * np.abs(new)
        step = (self._unit * np.abs(new - self._q)).max() if not gone else 0.0
        if angles.max() > TURN or step > self.jump:
            self._q, self._heard = new, now
            far = int(angles.argmax())
            self._fail(
                f"{self._names[far]} of the leader is at {new[far]:.1f}, more than a turn: joint states are in rad; "
                f"{OTHER_UNITS}" if angles[far] > TURN else
                f"the leader jumped by {step:.2f} rad; let go and take hold again"
            )  # fmt: skip
            return
        elapsed = now - self._heard
        if gone:
            self._qd, self.fault = np.zeros_like(new), ""
        elif elapsed > 1e-4:
            share = elapsed / (elapsed + SMOOTHING)
            self._qd = self._qd + share * ((new - self._q) / elapsed - self._qd)
        self._q, self._heard = new, now
        if self._gripper is not None and np.isfinite(at.get(self._gripper[0], np.nan)):
            _, low, high = self._gripper
            self._fraction = float(np.clip((at[self._gripper[0]] - low) / (high - low), 0.0, 1.0))

    def _fail(self, fault: str) -> None:
        self.fault = fault
        self.release()

    @classmethod
    def load(cls, path: str | Path, robot: RobotDescription) -> Leader:
        """Read a leader file: ``joints`` (robot joint: leader joint), ``scale`` (one or one each), ``gripper``.

        Raises:
            ConfigError: it cannot be read, or says too little or something unknown.
        """
        where = Path(path).name
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"leader file {path} cannot be read ({str(error).splitlines()[0]})") from None
        if not isinstance(data, dict) or set(data) - FILE_KEYS:
            raise ConfigError(f"{where}: known keys are {', '.join(sorted(FILE_KEYS))}")
        joints = data.get("joints") or {name: name for name in robot.joints}
        gripper = data.get("gripper")
        try:
            scale = np.broadcast_to(np.asarray(data.get("scale", 1.0), float), (len(robot.joints),))
            hand = None if not gripper else (str(gripper["joint"]), float(gripper["open"]), float(gripper["closed"]))
            return cls(robot, {str(k): str(v) for k, v in joints.items()}, scale, hand)
        except (TypeError, ValueError, KeyError, AttributeError):
            raise ConfigError(
                f"{where}: scale is a number or one per joint, joints are pairs 'robot joint: leader joint', and the "
                "gripper has joint, open and closed"
            ) from None

    def silent(self, now: float) -> bool:
        """Return whether nothing has come for ``timeout``."""
        return now - self._heard > self.timeout

    def ready(self, now: float) -> bool:
        """Return whether it can be engaged: it is there, and says where all joints are."""
        return not self.silent(now) and not self.fault

    @property
    def engaged(self) -> bool:
        """Whether the arm follows."""
        return self._origin is not None

    def engage(self, q: np.ndarray) -> None:
        """Tie the leader where it is to the commanded joints ``q`` [d]: from here on its motion counts."""
        self._origin, self._picked = (np.array(q, float), self._q.copy()), False

    def release(self) -> None:
        """Untie it."""
        self._origin = None

    def recover(self) -> None:
        """Forget a fault, once the hands have let go."""
        self.fault = ""

    def wish(self, now: float, commanded_gripper: float) -> Wish:
        """Return where the arm should be, within its soft bounds; rest while it is not engaged.

        Args:
            commanded_gripper: closed fraction in force. The leader's gripper counts once it has come to it, so
                that taking over does not drop what is held.
        """
        if self._origin is None or self.silent(now):
            return REST
        q0, leader0 = self._origin
        limits = self.robot.limits
        asked = q0 + self.scale * (self._q - leader0)
        goal = np.clip(asked, np.minimum(limits.lower, q0), np.maximum(limits.upper, q0))
        along = np.where(goal == asked, self.scale * self._qd, 0.0)
        gripper = None
        if self._fraction is not None:
            self._picked = self._picked or abs(self._fraction - commanded_gripper) < PICK_UP
            gripper = self._fraction if self._picked else None
        return Wish(goal=goal, goal_velocity=along, gripper=gripper)
