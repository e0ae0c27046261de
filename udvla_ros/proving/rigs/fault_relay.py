"""``fault_relay``: stands between the simulated robot and the rest of the graph and lets its sensors fail.

Cameras and joint states pass through it; by its parameters they freeze, fall silent or thin out. It also publishes a
clock that can be set. Nothing but the fault suite starts it.
"""

from __future__ import annotations

import sys
from array import array
from functools import partial

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image, JointState

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.parameters import Entry, Parameters
from udvla_ros.proving.faults.graph import CLOCK_HZ, TRUE

STATES = ("pass", "frozen", "gone")
TABLE = (
    Entry("robot", "config/robots/ur5e_sim.yaml", "robot file", read_only=True),
    Entry("front", "pass", "the front camera", choices=STATES),
    Entry("wrist", "pass", "the wrist camera", choices=STATES),
    Entry("joint_states_hz", 0.0, "joint states per second that pass at most; 0: all", 0.0, 1000.0),
    Entry("clock_offset", 0.0, "s by which /clock is ahead of the system's"),
)


class FaultRelay(Node):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("fault_relay")
        self.parameters = Parameters(self, TABLE)
        robot = RobotDescription.load(self.parameters["robot"])
        self._rng = np.random.default_rng(0)
        self._frozen: dict[str, array] = {}
        self._passed = -np.inf
        self._images = {}
        for name, camera in robot.cameras.items():
            self._images[name] = self.create_publisher(Image, camera["topic"], runtime.CAMERA_QOS)
            self.create_subscription(
                Image, f"{TRUE}/{camera['topic']}", partial(self._on_image, name), runtime.CAMERA_QOS
            )
        topic = robot.topics.get("joint_states", "joint_states")
        self._joints = self.create_publisher(JointState, topic, runtime.STATE_QOS)
        self.create_subscription(JointState, f"{TRUE}/{topic}", self._on_joints, runtime.STATE_QOS)
        self._clock_out = self.create_publisher(ClockMessage, "/clock", runtime.CAMERA_QOS)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / CLOCK_HZ, self._on_clock, clock=self._steady)
        runtime.announce_ready(self, f"cameras {', '.join(self._images)}")

    def _on_image(self, name: str, message: Image) -> None:
        state = self.parameters[name]
        if state == "gone":
            return
        if state == "frozen" and name in self._frozen:
            message.data = self._frozen[name]
        else:
            # A sensor's noise, which a rendered picture lacks: one step of brightness in every fourth value.
            pixels = np.frombuffer(message.data, np.uint8)
            noise = (self._rng.integers(0, 4, pixels.size, np.uint8) == 0) & (pixels < 255)
            message.data = self._frozen[name] = array("B", (pixels + noise).astype(np.uint8).tobytes())
        self._images[name].publish(message)

    def _on_joints(self, message: JointState) -> None:
        hz, now = self.parameters["joint_states_hz"], self._steady.now().nanoseconds * 1e-9
        if hz and now - self._passed < 1.0 / hz:
            return
        self._passed = now
        self._joints.publish(message)

    def _on_clock(self) -> None:
        if self._clock_out.get_subscription_count():
            stamp = runtime.to_stamp(runtime.now(self) + self.parameters["clock_offset"])
            self._clock_out.publish(ClockMessage(clock=stamp))


def main() -> int:
    """Run the node."""
    return runtime.run(FaultRelay)


if __name__ == "__main__":
    sys.exit(main())
