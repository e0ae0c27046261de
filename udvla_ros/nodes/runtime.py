"""What every node's process does: init, construct, spin, shut down, and turn errors into one line."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import rclpy
from builtin_interfaces.msg import Time
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import Executor, ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from udvla_ros.bringup import PARENT_VARIABLE, READY
from udvla_ros.errors import ConfigError, UdvlaError

RCLError = rclpy_implementation.RCLError
MOST_DOMAIN = 232  # beyond it there are no ports
# The newest image is the only one worth having, and a lost one is not worth waiting for.
CAMERA_QOS = QoSProfile(
    depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT
)
LATCHED_QOS = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
# Heard from publishers of every kind, reliable or not, latched or not.
ANY_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
# Every trajectory counts, in order; joint_trajectory_controller subscribes the same way.
COMMAND_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
STATE_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)

ALIVE = 2.0  # s without a sign of life after which a policy is not there
KEPT = 64 << 20  # bytes that malloc does not give back
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h

SERVED, AT_ONCE = 0.03, 2  # s between two looks of a paced node's executor, and callbacks that it runs at each


def quiet() -> SubscriptionEventCallbacks:
    """Return what keeps a subscription from watching for publishers of another QoS, where none can be."""
    return SubscriptionEventCallbacks(use_default_callbacks=False)


def unwatched() -> PublisherEventCallbacks:
    """Return what keeps a publisher from watching for subscriptions of another QoS: its executor asks each time."""
    return PublisherEventCallbacks(use_default_callbacks=False)


def to_seconds(stamp: Time) -> float:
    """Return a message's stamp in seconds."""
    return stamp.sec + stamp.nanosec * 1e-9


def to_stamp(seconds: float) -> Time:
    """Return seconds as a message's stamp."""
    whole = int(seconds // 1)
    return Time(sec=whole, nanosec=min(int((seconds - whole) * 1e9), 999_999_999))


def now(node: Node) -> float:
    """Return the node's clock in seconds."""
    return node.get_clock().now().nanoseconds * 1e-9


def announce_ready(node: Node, text: str) -> None:
    """Say that the node is ready; ``udvla_bringup`` waits for this line."""
    node.get_logger().info(f"{READY} {text}")


def keep_memory() -> None:
    """Keep what big messages were put in for the next ones: given back each time, the kernel clears it each time."""
    with contextlib.suppress(AttributeError, OSError):  # another libc
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT // 2)


def one_line(error: BaseException) -> str:
    """Return what an error says as one line, and of what kind it is where it is none of ours."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        from udvla_ros.cli.main import missing_module_line

        return missing_module_line(error) or str(error)
    said = " ".join(str(error).partition(", at /")[0].split())
    return said if isinstance(error, UdvlaError) else f"{type(error).__name__}: {said}"


def domain_trouble(text: str) -> str:
    """Return what is wrong with a ROS_DOMAIN_ID with which no process can join anything, or nothing."""
    if not text or (text.isascii() and text.isdigit() and int(text) <= MOST_DOMAIN):
        return ""
    return f"ROS_DOMAIN_ID is '{text}'; use 0 to 101: higher ports collide, and beyond {MOST_DOMAIN} there are none"


def init(args: Sequence[str] | None = None, context: rclpy.Context | None = None) -> None:
    """Begin with ROS; what is wrong with the environment or the arguments is one line.

    Raises:
        ConfigError: the domain, the folder of logs, a parameter file or an argument is not usable.
    """
    trouble = domain_trouble(os.environ.get("ROS_DOMAIN_ID", ""))
    if trouble:
        raise ConfigError(trouble)
    if not any(os.environ.get(name) for name in ("HOME", "ROS_HOME", "ROS_LOG_DIR")):
        raise ConfigError("neither HOME nor ROS_LOG_DIR is set; name a folder for logs: ROS_LOG_DIR=/var/log/udvla")
    try:
        rclpy.init(args=None if args is None else list(args), context=context)
    except Exception as error:  # whatever rcl objects to, it is what this process was started with
        raise ConfigError(f"ROS cannot start: {one_line(error)}; mend what follows --ros-args") from None


def hear(node: Node, kind: type, topic: str, heard: Callable[[Any], object]) -> list[Subscription]:
    """Subscribe to what an operator says, latched or not (Foxglove, rosbridge, ``ros2 topic pub``); each word once."""
    seen: deque[tuple[int, str]] = deque(maxlen=16)

    def once(message: Any, info: Any) -> None:
        word = (info["source_timestamp"], str(message))
        if word not in seen:
            seen.append(word)
            heard(message)

    callback: Any = once  # rclpy looks how many arguments it takes, which its annotations do not say
    return [
        node.create_subscription(kind, topic, callback, qos, event_callbacks=quiet()) for qos in (LATCHED_QOS, ANY_QOS)
    ]


class GuardedLifecycle(LifecycleNode):
    """A lifecycle node that refuses a transition which its state does not have, and lives on."""

    def _LifecycleNodeMixin__change_state(self, transition: int) -> TransitionCallbackReturn:
        state = self._state_machine.current_state[1]
        try:
            return cast(Any, super())._LifecycleNodeMixin__change_state(transition)
        except RCLError as error:
            self.get_logger().warning(f"no transition {transition} from state {state}: {one_line(error)}")
            return TransitionCallbackReturn.FAILURE


def run(
    make: Callable[[], Node], *, threads: int = 1, args: Sequence[str] | None = None, every: float | None = None
) -> int:
    """Spin one node until it is told to end; the node may have a ``close()`` for what it must free.

    Args:
        every: s between calls of the node's ``tick()``, on a steady clock and before any other callback that waits.

    Returns the exit code: 0, or 2 after the one line of a :class:`UdvlaError` or of a parameter out of range.
    """
    try:
        init(args)
    except ConfigError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    _end_with_bringup()
    executor: Executor = MultiThreadedExecutor(threads) if threads > 1 else SingleThreadedExecutor()
    node: Node | None = None
    try:
        node = make()
        executor.add_node(node)
        _spin(executor, node, every)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (UdvlaError, ModuleNotFoundError, ParameterException, NameValidationException, RCLError) as error:
        if rclpy.ok() or not isinstance(error, RCLError):
            print(one_line(error), file=sys.stderr, flush=True)
            return UdvlaError.exit_code
    finally:
        # The executor leaves callbacks that it had already made and never ran; that is no news to anybody.
        warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)
        # A second Ctrl-C must not cut the cleaning up short.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        if node is not None:
            close = getattr(node, "close", None)
            if close is not None:
                close()
            executor.remove_node(node)
            node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()
        signal.signal(signal.SIGINT, previous)
    return 0


def _spin(executor: Executor, node: Node, every: float | None) -> None:
    """Spin until the end. A callback that fails is logged and goes without an effect; the process lives on.

    A node with a ``fault(line)`` is told, to do what is safe.
    """
    while executor.context.ok():
        try:
            if every is None:
                executor.spin()
            else:
                _pace(executor, node, every)
        except (KeyboardInterrupt, ExternalShutdownException):
            raise
        except Exception as error:
            # The signal handler may have shut the context down under a callback that was about to publish: no fault.
            if not rclpy.ok():
                return
            told = "".join(traceback.format_exception(error))
            node.get_logger().error(f"a callback failed, and was left: {told}", throttle_duration_sec=1.0)
            getattr(node, "fault", lambda line: None)(one_line(error))


def _pace(executor: Executor, node: Node, every: float) -> None:
    """Call ``node.tick()`` steadily, and look after services and parameters every ``SERVED`` s.

    A look of rclpy's executor at its entities costs more than a tick does; what comes often is polled by the tick. A
    clock that is published comes by a subscription, so then the executor is let wait.
    """
    simulated = node.get_parameter("use_sim_time").value
    due = served = time.monotonic()
    while executor.context.ok():
        node.tick()  # type: ignore[attr-defined]
        now = time.monotonic()
        due = max(due + every, now)
        if simulated:
            while (left := due - time.monotonic()) > 0.0:
                executor.spin_once(timeout_sec=left)
            continue
        if now >= served + SERVED:
            served = now
            for _ in range(AT_ONCE):
                executor.spin_once(timeout_sec=0.0)
        time.sleep(max(due - time.monotonic(), 0.0))


def _end_with_bringup() -> None:
    """End like on Ctrl-C when the bringup that started this process is gone, killed outright perhaps."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None or int(parent) != os.getppid():
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, name="bringup watch", daemon=True).start()
