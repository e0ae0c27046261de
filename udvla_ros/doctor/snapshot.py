"""What a look at the running graph brings home, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

BEST_EFFORT, RELIABLE = "best_effort", "reliable"
VOLATILE, TRANSIENT_LOCAL = "volatile", "transient_local"


@dataclass(frozen=True)
class Qos:
    """The two policies over which a publisher and a subscription fail to meet."""

    reliability: str = RELIABLE
    durability: str = VOLATILE


@dataclass(frozen=True)
class Endpoint:
    """A publisher or a subscription: its node, message type and policies."""

    node: str
    type: str
    qos: Qos = Qos()


@dataclass(frozen=True)
class Topic:
    """Both ends of a topic under its full name."""

    name: str
    publishers: tuple[Endpoint, ...] = ()
    subscriptions: tuple[Endpoint, ...] = ()


@dataclass
class Stream:
    """The messages of one topic that came while looking.

    Attributes:
        arrivals: s on this machine's clock.
        stamps: s of their headers, in order of arrival.
    """

    arrivals: list[float] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)

    def hz(self) -> float:
        """Return messages per second between the first and the last; 0 with fewer than two."""
        if len(self.arrivals) < 2 or self.arrivals[-1] <= self.arrivals[0]:
            return 0.0
        return (len(self.arrivals) - 1) / (self.arrivals[-1] - self.arrivals[0])

    def longest_gap(self) -> float:
        """Return the longest time between two messages, s."""
        return float(np.diff(self.arrivals).max()) if len(self.arrivals) > 1 else float("inf")

    def delays(self) -> np.ndarray:
        """Return arrival less stamp of each message, s."""
        return np.array(self.arrivals) - np.array(self.stamps)


@dataclass
class JointStates(Stream):
    """Joint states: the newest position and how often each joint came, and which names come together."""

    positions: dict[str, float] = field(default_factory=dict)
    groups: dict[tuple[str, ...], int] = field(default_factory=dict)
    with_velocity: bool = True


@dataclass
class Camera(Stream):
    """Images of a camera.

    Attributes:
        encodings, sizes: all that came; size as (width, height).
        image: the newest, uint8 [h, w, 3], or None.
        unchanged: s since which the picture has been the very same.
        problem: why an image could not be read.
    """

    encodings: set[str] = field(default_factory=set)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    image: np.ndarray | None = None
    unchanged: float = 0.0
    problem: str = ""


@dataclass
class Controller:
    """What is known of the controller behind the command topic.

    Attributes:
        node: full name its command topic implies.
        parameters: of that node, those that could be read; None if it has no parameter service.
        manager: full name of a controller_manager in the graph, or empty.
        states: controller -> (type, state) as the manager lists them; None where it could not be asked.
        why_unknown: why it could not be asked.
    """

    node: str = ""
    parameters: Mapping[str, object] | None = None
    manager: str = ""
    states: Mapping[str, tuple[str, str]] | None = None
    why_unknown: str = ""


@dataclass
class Arbiter:
    """What the arbiter says of itself; ``mode`` is empty when none is heard."""

    mode: str = ""
    reason: str = ""
    level: int = 0
    message: str = ""
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Snapshot:
    """One look at the graph.

    ``topics`` are keyed by the names of the robot file and of the graph (``joint_states``, ``arbiter/mode``), each
    with the full name it resolves to; ``driver`` holds the values of the topics in the robot file's ``driver``.
    """

    seconds: float
    nodes: Sequence[str] = ()
    topics: dict[str, Topic] = field(default_factory=dict)
    joint_states: JointStates = field(default_factory=JointStates)
    cameras: dict[str, Camera] = field(default_factory=dict)
    controller: Controller = field(default_factory=Controller)
    arbiter: Arbiter = field(default_factory=Arbiter)
    driver: dict[str, object] = field(default_factory=dict)
    urdf: str = ""
    use_sim_time: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def topic(self, name: str) -> Topic:
        """Return a topic by its name in the robot file; without ends if it was not seen."""
        return self.topics.get(name, Topic(name))
