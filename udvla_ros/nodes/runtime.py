"""What every node's process does: init, construct, spin, shut down, and turn errors into one line."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence

import rclpy
from builtin_interfaces.msg import Time
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from udvla_ros.bringup import PARENT_VARIABLE, READY
from udvla_ros.errors import UdvlaError

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


def run(
    make: Callable[[], Node], *, threads: int = 1, args: Sequence[str] | None = None, every: float | None = None
) -> int:
    """Spin one node until it is told to end; the node may have a ``close()`` for what it must free.

    Args:
        every: s between calls of the node's ``tick()``, on a steady clock and before any other callback that waits.

    Returns the exit code: 0, or 2 after the one line of a :class:`UdvlaError` or of a parameter out of range.
    """
    rclpy.init(args=None if args is None else list(args))
    _end_with_bringup()
    executor: Executor = MultiThreadedExecutor(threads) if threads > 1 else SingleThreadedExecutor()
    node: Node | None = None
    try:
        node = make()
        executor.add_node(node)
        if every is None:
            executor.spin()
        else:
            _pace(executor, node, every)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (UdvlaError, ParameterException) as error:
        print(" ".join(str(error).split()), file=sys.stderr, flush=True)
        return UdvlaError.exit_code
    except Exception:
        # The signal handler has shut the context down under a callback that was about to publish: no fault.
        if rclpy.ok():
            raise
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
