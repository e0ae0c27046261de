"""``sim_node``: MuJoCo in place of the cameras, the joint states and the controllers of a real UR5e.

Physics runs in real time in a thread of its own: one controller period, one joint state, and when an image is
due, the cameras, stamped when they are rendered. When rendering or the machine takes longer than a period
the physics catches up afterwards, so that the arm never runs slow. The software renderer and the physics
share this one thread because the OpenGL context belongs to it.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from udvla_ros.errors import UdvlaError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.diagnostics import ERROR, OK, WARN, Diagnostics, Rate, Report
from udvla_ros.nodes.images import fill_image
from udvla_ros.nodes.messages import command_from_message
from udvla_ros.nodes.sim_frames import Frames, optical_frame
from udvla_ros.nodes.sim_robot import SimulatedRobot
from udvla_ros.sim.jtc import TrajectoryRejected
from udvla_ros.sim.scene import default_cameras
from udvla_ros.sim.world import TabletopWorld

# Further behind than this, the backlog is dropped and said so: the machine is too slow for real time.
HOPELESS = 2.0


class SimNode(Node):
    """The simulated robot on the topics of the real one."""

    def __init__(self) -> None:
        super().__init__("sim_node")
        self._declare()
        self.robot = RobotDescription.load(self.get_parameter("robot").value)
        topics, gripper = self.robot.topics, self.robot.gripper
        self._joint_states = self.create_publisher(
            JointState, topics.get("joint_states", "joint_states"), runtime.STATE_QOS
        )
        self._cameras = {
            name: self.create_publisher(Image, camera["topic"], runtime.CAMERA_QOS)
            for name, camera in self.robot.cameras.items()
        }
        self._episode = self.create_publisher(String, "~/episode", runtime.LATCHED_QOS)
        self._instruction = self.create_publisher(String, "instruction", runtime.LATCHED_QOS)
        self.create_subscription(
            JointTrajectory, topics["command"], partial(self._on_command, gripper=False), runtime.COMMAND_QOS
        )
        if gripper is not None:
            self.create_subscription(
                JointTrajectory, gripper.command_topic, partial(self._on_command, gripper=True), runtime.COMMAND_QOS
            )
        self.create_service(Trigger, "~/reset_episode", self._on_reset)
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._rejected = ""
        self._rejections = 0
        self._late = 0.0
        self._dropped = 0
        self._rates = {"joint_states": Rate(), "images": Rate()}
        self._stop = threading.Event()
        self._started: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
        self._thread.start()
        failure = self._started.get()
        if failure is not None:
            raise failure
        Diagnostics(self, f"simulated {self.robot.name}", self._report)
        runtime.announce_ready(self, f"simulated {self.robot.name}, seed {self._state.episode.seed}")

    def _declare(self) -> None:
        def declare(name: str, default: object, text: str, low=None, high=None, fixed: bool = False) -> None:
            ranges = [] if low is None else [IntegerRange(from_value=low, to_value=high, step=1)]
            self.declare_parameter(
                name, default, ParameterDescriptor(description=text, integer_range=ranges, read_only=fixed)
            )

        declare("robot", "config/robots/ur5e_sim.yaml", "robot file", fixed=True)
        declare("camera_hz", 12, "images per second of each camera", 1, 60)
        declare("image_scale", 1, "camera images are this many times what the small policy sees", 1, 10, True)
        declare("controller_hz", 100, "cycles of the controllers, and joint states, per second", 100, 500, True)
        declare("interpolate_from_desired_state", True, "as the controller's parameter of that name", fixed=True)
        declare("publish_instruction", True, "publish the episode's sentence on instruction at each reset")
        declare("seed", 0, "seed of the next episode's scene", 0, 2**31 - 1)
        declare("task", "", "task of the next episode: kind/colour, kind, colour, or empty for any")
        declare("instruction", "", "sentence of the next episode; empty: one of the task's phrasings")

    # -- the executor's side -----------------------------------------------------------------------------
    def _on_command(self, message: JointTrajectory, *, gripper: bool) -> None:
        self._inbox.put((message, gripper))

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        done: queue.SimpleQueue = queue.SimpleQueue()
        self._inbox.put(done)
        try:
            response.success, response.message = done.get(timeout=5.0)
        except queue.Empty:
            response.success, response.message = False, "the simulation does not answer; see its log"
        return response

    def _report(self) -> Report:
        now = runtime.now(self)
        rates = {f"{name}_hz": rate.hz(now) for name, rate in self._rates.items()}
        values = {
            **rates,
            "late_ms": self._late * 1e3,
            "backlogs_dropped": self._dropped,
            "rejected_trajectories": self._rejections,
            "last_rejection": self._rejected,
            "limit_violations": self._state.audit.violations,
            **{f"violations_{kind}": count for kind, count in self._state.audit.counts.items()},
            **{f"worst_{kind}": value for kind, value in self._state.audit.worst.items()},
        }
        if not self._thread.is_alive():
            return ERROR, "the physics thread has ended", values
        if self._dropped:
            return WARN, "this machine is too slow for real time", values
        return OK, f"episode {self._state.episode.number} {self._state.episode.state}", values

    # -- the physics thread ------------------------------------------------------------------------------
    def _run(self) -> None:
        world = None
        try:
            scale = self.get_parameter("image_scale").value
            cameras = {
                name: replace(camera, height=camera.height * scale, width=camera.width * scale)
                for name, camera in default_cameras().items()
            }
            world = TabletopWorld(render=True, cameras=cameras)
            self._state = SimulatedRobot(
                world, self.robot, self.get_parameter("interpolate_from_desired_state").value,
                self.get_parameter("controller_hz").value,
            )  # fmt: skip
            self._reset(runtime.now(self))
            self._frames = Frames(self, self.robot, world)
        except Exception as error:  # handed to the constructor, which runs in the main thread
            self._started.put(error)
            if world is not None:
                world.close()
            return
        self._started.put(None)
        try:
            self._loop(world)
        except Exception as error:
            if not self._stop.is_set():
                self.get_logger().fatal(f"the physics thread ended: {error!r}")
        finally:
            world.close()

    def _loop(self, world: TabletopWorld) -> None:
        state, period = self._state, self._state.period
        clock = runtime.now(self)  # ROS time at which the next controller period begins
        ahead = time.monotonic() - clock
        next_image, violations = clock, 0
        while not self._stop.is_set():
            wait = clock + ahead - time.monotonic()
            if wait > 0:
                self._stop.wait(wait)
            self._late = max(0.0, -wait)
            if self._late > HOPELESS:
                clock = time.monotonic() - ahead
                self._dropped += 1
                state.audit.restart()
            self._take_messages(clock)
            self._publish_joint_state(clock)
            # An image while the physics lags would carry the time of now with the pose of then.
            if clock >= next_image and self._late < period:
                self._publish_images(world, clock)
                next_image = max(next_image + 1.0 / self.get_parameter("camera_hz").value, clock)
            if state.tick(clock):
                self._publish_episode()
            if state.audit.violations > violations:
                violations = state.audit.violations
                worst = ", ".join(f"{kind} {share:.2f}" for kind, share in sorted(state.audit.worst.items()))
                self.get_logger().warning(f"limit violation at the controller; so far, worst shares: {worst}")
            clock += period

    def _take_messages(self, now: float) -> None:
        while True:
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                return
            if isinstance(item, queue.SimpleQueue):
                try:
                    self._reset(now)
                    item.put((True, json.dumps(self._state.episode.as_dict())))
                except UdvlaError as error:
                    item.put((False, str(error)))
                continue
            message, gripper = item
            try:
                self._state.accept(command_from_message(message), now, gripper=gripper)
            except TrajectoryRejected as error:
                self._rejections += 1
                self._rejected = f"{'gripper' if gripper else 'arm'}: {error}"
                self.get_logger().warning(f"trajectory rejected, {self._rejected}")

    def _reset(self, now: float) -> None:
        values = {name: self.get_parameter(name).value for name in ("seed", "task", "instruction")}
        episode = self._state.reset(values["seed"], values["task"], values["instruction"], now)
        self._publish_episode()
        if self.get_parameter("publish_instruction").value:
            self._instruction.publish(String(data=episode.instruction))

    def _publish_episode(self) -> None:
        self._episode.publish(String(data=json.dumps(self._state.episode.as_dict())))

    def _publish_joint_state(self, now: float) -> None:
        names, position, velocity = self._state.joint_state()
        message = JointState(name=list(names), position=position.tolist(), velocity=velocity.tolist())
        message.header.stamp = runtime.to_stamp(now)
        message.header.frame_id = self.robot.base_frame
        self._joint_states.publish(message)
        self._rates["joint_states"].note(now)

    def _publish_images(self, world: TabletopWorld, now: float) -> None:
        images: dict[str, np.ndarray] = world.render()
        stamp = runtime.to_stamp(now)
        for name, publisher in self._cameras.items():
            message = fill_image(Image(), images[name], "rgb8")
            message.header.stamp = stamp
            message.header.frame_id = optical_frame(name)
            publisher.publish(message)
            self._frames.publish(name, stamp)
        self._rates["images"].note(now)

    def close(self) -> None:
        """End the physics and free the OpenGL context."""
        self._stop.set()
        self._thread.join(5.0)


def main() -> int:
    """Run the node."""
    return runtime.run(SimNode)


if __name__ == "__main__":
    sys.exit(main())
