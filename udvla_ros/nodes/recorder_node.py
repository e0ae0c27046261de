"""``recorder_node``: one rosbag2 folder (MCAP and ``metadata.yaml``) per episode, complete and labelled.

Messages are recorded as the raw bytes that were published, with their publishers' QoS and type hashes. One thread
takes them from the subscriptions (:mod:`udvla_ros.nodes.taps`), another writes; the executor has the services. The
one exception to raw is ``images: compressed`` where nobody publishes ``<camera>/compressed``: then the recorder
makes the JPEGs. It talks to no other node but to ask for the decoder's parameters, and nobody needs it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger

from udvla_ros.errors import UdvlaError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.diagnostics import ERROR, OK, WARN, Diagnostics, Report
from udvla_ros.nodes.parameters import Parameters
from udvla_ros.nodes.recorder_losses import Losses
from udvla_ros.nodes.recorder_parts import TABLE, DecoderQuestion, check_room, fixed_labels, free, free_folder
from udvla_ros.nodes.taps import Taps
from udvla_ros.policy.words import means_hold
from udvla_ros.rollouts.bags.auto import Automatic
from udvla_ros.rollouts.bags.jpeg import Compressor
from udvla_ros.rollouts.bags.labels import HAND_OVER, INSTRUCTION, MODE, TOLD, Labels
from udvla_ros.rollouts.bags.recording import Recording
from udvla_ros.rollouts.bags.ring import Latched, Ring
from udvla_ros.rollouts.bags.source import Sample, Source, text_of
from udvla_ros.rollouts.bags.states import OUTCOMES, UNKNOWN, State, after, why_not
from udvla_ros.rollouts.bags.topics import episode_topics
from udvla_ros.rollouts.bags.writer import EpisodeWriter, relabel

PERIOD = 0.02  # s between two looks at the subscriptions
SURVEY = 0.25  # s between two looks at the graph
GRACE = 0.1  # s after the end for which messages on their way are still taken
# ns before an automatic start: the policy's first chunk was made of images and commands from before it had the arm.
LEAD = 1_000_000_000
SAVE_WAIT = 8.0  # s that a service waits for the disk before it answers that it goes on


class RecorderNode(Node):
    """Subscriptions in, one bag at a time out."""

    def __init__(self) -> None:
        super().__init__("recorder_node")
        self.parameters = Parameters(self, TABLE)
        values = self.parameters.values()
        robot = RobotDescription.load(values["robot"])
        self._fixed = fixed_labels(robot, values, self.resolve_topic_name)
        self._directory = Path(values["record_dir"]).expanduser()
        self._taps = Taps(
            self, episode_topics(robot, values["images"], values["extra_topics"]), self.get_logger().warning
        )
        self._told = {self.resolve_topic_name(name): name for name in TOLD}
        self._last_told: dict[str, str] = {}
        self._latched = Latched()
        self._ring = Ring(values["snapshot_seconds"], values["snapshot_mb"] << 20, self._taps.publishers)
        self._compressor = Compressor(values["jpeg_quality"])
        self._auto = Automatic(values["settle"])
        self._lock = threading.RLock()
        self._state = State.IDLE
        self._recording: Recording | None = None
        self._labels: Labels | None = None
        self._ends_at: float | None = None  # when what is on its way has come, and the recording may end
        self._event = ""
        self._handed_over = False
        self._began = 0.0
        self._taken = 0
        self._idle = threading.Event()
        self._idle.set()
        self._last: dict[str, Any] = {}
        self._fault = ""
        self._bytes_seen = (time.monotonic(), 0)
        self._broken = ""
        self._status = self.create_publisher(String, "~/status", runtime.LATCHED_QOS)
        self._decoder = DecoderQuestion(self)
        self.create_service(Trigger, "~/start", self._on_start)
        self.create_service(Trigger, "~/snapshot", self._on_snapshot)
        for event in ("stop_success", "stop_failure", "discard"):
            self.create_service(Trigger, f"~/{event}", partial(self._on_end, event))
        self._diagnostics = Diagnostics(self, robot.name, self._report)
        self._losses = Losses(self._taps.lost, self.get_logger(), self._diagnostics.publish)
        self.create_timer(1.0, self._publish_status)
        self._next_survey = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._thread.start()
        self._publish_status()
        runtime.announce_ready(self, f"records {robot.name} into {self._directory}")

    # -- services, in the executor -------------------------------------------------------------------------
    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            response.success, response.message = self._start(automatically=False)
        return response

    def _on_snapshot(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            response.success, response.message = self._snapshot()
        return self._once_saved(response) if response.success else response

    def _on_end(self, event: str, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            if self._state is State.IDLE and event in OUTCOMES and self._last.get("outcome") == UNKNOWN:
                response.success, response.message = self._label_last(OUTCOMES[event])
                return response
            response.success, response.message = self._end(event)
        return self._once_saved(response) if response.success else response

    def _once_saved(self, response: Trigger.Response) -> Trigger.Response:
        """Answer when the bag is on the disk: the executor has nothing to do meanwhile that could not wait."""
        if not self._idle.wait(SAVE_WAIT):
            response.message = f"still saving {response.message}; see ~/status"
            return response
        response.success, response.message = self._fit(self._last.get("folder") or response.message)
        return response

    # -- what the services and the automatic do, under the lock --------------------------------------------
    def _start(self, automatically: bool) -> tuple[bool, str]:
        if after(self._state, "start") is None or self._broken:
            return False, self._broken or why_not(self._state)
        self._taps.survey()
        self._take(self._taps.drain())  # from before the start
        labels = Labels(self._fixed, runtime.now(self), instruction=self._last_told.get(INSTRUCTION, ""))
        try:
            recording = self._open(labels, "", self._taps.sources())
        except UdvlaError as error:
            self._fault = str(error)
            self.get_logger().error(self._fault)
            self._publish_status()
            return False, self._fault
        self._fault = ""
        now = time.time_ns()
        first = (self._ring.contents(now - LEAD) if automatically else []) or self._latched.at(now)
        recording.start(first)
        self._taken = len(first)
        self._auto.began(automatically)
        self._losses.begin()
        self._decoder.ask(labels)
        self._become("start")
        missing = self._taps.missing()
        self.get_logger().info(f"recording {recording.folder}")
        if missing:
            self.get_logger().warning(f"nobody publishes {', '.join(missing)}: not in this episode so far")
        return True, str(recording.folder)

    def _open(self, labels: Labels, ending: str, sources: list[Source]) -> Recording:
        check_room(self._directory, self.parameters["min_free_mb"])
        convert = self._compressor if self._fixed["images"] == "compressed" else None
        writer = EpisodeWriter(free_folder(self._directory, ending), labels.texts(), self.parameters["compression"])
        try:
            for source in sources:
                writer.declare(convert.source(source) if convert else source)
        except OSError as error:
            writer.discard()
            raise UdvlaError(f"cannot write to {writer.folder} ({error.strerror}); free some space") from None
        self._labels = labels
        self._recording = Recording(
            writer, self.parameters["queue_mb"] << 20, self._closing,
            convert or (lambda sample: sample), self.parameters["min_free_mb"] << 20,
        )  # fmt: skip
        self._began, self._bytes_seen = time.monotonic(), (time.monotonic(), 0)
        return self._recording

    def _snapshot(self) -> tuple[bool, str]:
        if after(self._state, "snapshot") is None or self._broken:
            return False, self._broken or why_not(self._state)
        samples = self._ring.contents()
        if not samples:
            return False, "nothing to save: no message came in the last snapshot_seconds"
        labels = Labels(self._fixed, samples[0].received * 1e-9, kind="snapshot")
        for name, text in self._last_told.items():
            labels.hear(name, text)
        try:
            recording = self._open(labels, "_snapshot", list(dict.fromkeys(s.source for s in samples)))
        except UdvlaError as error:
            return False, str(error)
        self._losses.begin()
        self._taken = len(samples)
        recording.start(samples)
        self._event, self._ends_at = "snapshot", time.monotonic()
        self._become("snapshot")
        return True, str(recording.folder)

    def _end(self, event: str) -> tuple[bool, str]:
        if after(self._state, event) is not State.SAVING:
            return False, why_not(self._state)
        assert self._recording is not None
        self._event, self._ends_at = event, time.monotonic() + GRACE
        self._become(event)
        return True, str(self._recording.folder)

    def _label_last(self, outcome: str) -> tuple[bool, str]:
        folder = Path(self._last["folder"])
        try:
            relabel(folder, {"outcome": outcome, "labelled_by": "operator"})
        except (UdvlaError, OSError) as error:
            return False, str(error)
        self._last["outcome"] = outcome
        self._publish_status()
        return self._fit(f"{folder}: {outcome}")

    def _fit(self, said: str) -> tuple[bool, str]:
        """Return whether the last recording is one to learn from, and ``said`` or why it is not."""
        trouble = self._last.get("error") or (
            f"{self._last['dropped']} messages dropped" if self._last.get("dropped") else ""
        )
        return not trouble, f"{said}, but not fit to learn from: {trouble}" if trouble else said

    def _become(self, event: str) -> None:
        state = after(self._state, event)
        assert state is not None
        self._state = state
        if state is State.IDLE:
            self._idle.set()
        else:
            self._idle.clear()
        self._publish_status()

    # -- the intake thread ---------------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            while not self._stop.wait(PERIOD):
                with self._lock:
                    self._step(time.monotonic())
        except Exception as error:  # a recorder that has stopped taking messages has to say so
            if not self.context.ok():  # the signal handler has shut down under the subscriptions
                return
            self._broken = f"the intake thread has ended ({type(error).__name__}: {error}); start the node anew"
            self.get_logger().fatal(f"{self._broken}\n{traceback.format_exc()}")
            with self._lock:
                if self._recording is not None:
                    self._recording.end()
            self._diagnostics.publish()

    def _step(self, now: float) -> None:
        self._take(self._taps.drain())
        if self._handed_over:  # what led to it is kept, in the episode or else by itself
            self._handed_over = False
            if self._state is State.IDLE:
                self._snapshot()
        if now >= self._next_survey:
            self._next_survey = now + SURVEY
            self._taps.survey()
            if self._state is State.RECORDING:
                self._losses.look()
        if self.parameters["auto"]:
            due = self._auto.due(now)
            if due == "start" and self._state is State.IDLE:
                started, _ = self._start(automatically=True)
                if not started:
                    self._auto.began(False)  # said once; the next time the policy is engaged is another try
                    self._auto.ended()
            elif due == "stop" and self._state is State.RECORDING:
                self._end("stop")
        recording = self._recording
        if recording is None:
            return
        if self._ends_at is not None and now >= self._ends_at:
            self._ends_at = None
            recording.end(discard=self._event == "discard")
        if recording.error and self._state is State.RECORDING:
            self._event = "fault"
            self._become("fault")
            self.get_logger().error(recording.error)
            self._diagnostics.publish()
        if recording.done.is_set():
            self._saved(recording)

    def _take(self, samples: list[Sample]) -> None:
        """Pass messages on: to the ring, to the recording, and what the labels are made of, to those."""
        if not samples:
            return
        for sample in samples:
            source = sample.source
            if source.latched:
                self._latched.add(sample, self._taps.publishers(source.name))
            name = self._told.get(source.name)
            if name is not None:
                self._hear(name, sample)
        self._ring.extend(samples)
        recording = self._recording
        if recording is None or (self._state is not State.RECORDING and self._ends_at is None):
            return
        if self._event == "snapshot":
            return
        refused = recording.put(samples)
        self._taken += len(samples) - refused.total()
        if refused and not recording.error:
            self._losses.dropped(recording.dropped)

    def _hear(self, name: str, sample: Sample) -> None:
        try:
            text = text_of(sample.data)
        except ValueError:
            return
        if name == INSTRUCTION and means_hold(text):
            return  # no sentence to learn: the one before it is what was done
        self._last_told.pop(name, None)
        self._last_told[name] = text  # the newest last
        self._handed_over |= name == HAND_OVER
        if name == MODE:
            self._auto.hear(text, time.monotonic())
        if self._labels is not None:
            self._labels.hear(name, text)

    def _closing(self, dropped: Any) -> dict[str, str]:
        """Return the labels of the end; called by the writing thread, once no more messages come."""
        assert self._labels is not None and self._recording is not None
        self._labels.error = self._recording.error
        self._labels.judge(OUTCOMES.get(self._event, ""))
        return self._labels.closing(runtime.now(self), dropped, self._losses.unheard())

    def _saved(self, recording: Recording) -> None:
        labels, discarded = self._labels, self._event == "discard" and not recording.error
        assert labels is not None
        self._auto.ended()
        self._fault = recording.error
        self._last = {
            "folder": "" if discarded else str(recording.folder),
            "outcome": "discarded" if discarded else labels.outcome,
            "messages": 0 if discarded else recording.count,
            "dropped": recording.dropped.total(),
            "lost": self._losses.unheard().total(),
            "error": recording.error,
        }
        self._recording, self._labels, self._event = None, None, ""
        if recording.error:
            self.get_logger().error(recording.error)
        dropped = f", {self._last['dropped']} dropped" if self._last["dropped"] else ""
        self.get_logger().info(
            f"discarded {recording.folder.name}" if discarded
            else f"saved {recording.folder}: {labels.outcome}, {recording.count} messages{dropped}, "
            f"{recording.bytes / 1e6:.1f} MB"
        )  # fmt: skip
        self._become("saved")
        self._diagnostics.publish()

    # -- what is told ----------------------------------------------------------------------------------------
    def _publish_status(self) -> None:
        with self._lock:
            said: dict[str, Any] = {"state": self._state.value, "error": self._broken or self._fault}
            recording = self._recording
            if recording is not None:
                said |= {
                    "folder": str(recording.folder),
                    "seconds": round(time.monotonic() - self._began, 3),
                    "messages": self._taken,
                    "dropped": recording.dropped.total(),
                    "lost": self._losses.unheard().total(),
                }
            said |= {"topics": self._taps.counts(), "last": self._last}
        self._status.publish(String(data=json.dumps(said)))

    def _report(self) -> Report:
        with self._lock:
            recording, now = self._recording, time.monotonic()
            lost = self._taps.lost()
            values: dict[str, object] = {
                "state": self._state.value,
                "auto": self.parameters["auto"],
                "snapshot_mb": self._ring.size / 1e6,
                "snapshot_messages": len(self._ring),
                "lost_before_the_recorder": lost.total(),
                "last": self._last.get("folder", ""),
                "last_outcome": self._last.get("outcome", ""),
            }
            values |= {f"lost{name}": count for name, count in sorted(lost.items())}
            if recording is not None:
                then, size = self._bytes_seen
                self._bytes_seen = now, recording.bytes
                values |= {
                    "folder": str(recording.folder),
                    "messages": self._taken,
                    "queue_messages": len(recording.backlog),
                    "queue_mb": recording.backlog.size / 1e6,
                    "mb_per_second": max(0, recording.bytes - size) / 1e6 / max(now - then, 1e-3),
                    "dropped": recording.dropped.total(),
                }
                values |= {f"dropped{name}": count for name, count in sorted(recording.dropped.items())}
            error = self._broken or (recording.error if recording else "") or self._fault
        values["disk_free_mb"] = free(self._directory) / 1e6
        if error:
            return ERROR, error, values
        if self._losses.recent():
            return WARN, "messages were dropped or lost; see the values dropped/* and lost/*", values
        return OK, self._state.value, values

    def close(self) -> None:
        """End the threads; a recording in progress is saved, without an outcome."""
        self._stop.set()
        self._thread.join(2.0)
        recording = self._recording
        if recording is None:
            return
        if self._state is State.RECORDING:
            self._event = "stop"
        recording.end(discard=self._event == "discard")
        recording.done.wait(4.0)  # bringup waits five seconds before it insists


def main() -> int:
    """Run the node."""
    return runtime.run(RecorderNode)


if __name__ == "__main__":
    sys.exit(main())
