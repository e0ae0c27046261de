"""Start a graph of :mod:`udvla_ros.graph` where ``ros2 launch`` is missing, and stop it cleanly.

This is not launch: it starts each row of the table as ``python -m module --ros-args ...``, puts the node's
name before each line of its log, and ends everything with SIGINT, then SIGTERM, then SIGKILL.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from udvla_ros import graph, resources
from udvla_ros.errors import ConfigError, UdvlaError

# A node says so in its log once its publishers and subscriptions stand.
READY = "[ready]"
# Tells a node whose child it is, so that it ends when the bringup is killed outright.
PARENT_VARIABLE = "UDVLA_BRINGUP_PID"


RESPAWN_DELAY = 2.0  # s


class BringupError(UdvlaError):
    """A node ended or did not become ready in time."""


def loopback_environment(base: Mapping[str, str] | None = None, domain: int | None = None) -> dict[str, str]:
    """Return an environment in which ROS 2 traffic stays on this machine and images are not lost.

    Without it DDS multicasts on the network, and the default shared-memory segment drops most VGA frames.
    """
    env = dict(os.environ if base is None else base)
    env["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    env.pop("ROS_LOCALHOST_ONLY", None)
    env["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(resources.find("config/fastdds_loopback.xml"))
    if domain is not None:
        env["ROS_DOMAIN_ID"] = str(domain)
    return env


def _nice(niceness: int) -> list[str]:
    return ["nice", "-n", str(niceness)] if niceness and shutil.which("nice") else []


class _Process:
    """One node's process and the thread that reads its log."""

    def __init__(
        self,
        node: graph.ResolvedNode,
        env: Mapping[str, str],
        changed: threading.Condition,
        write: Callable[[str], None],
        log_file: Path | None,
    ) -> None:
        self.node = node
        self.ready = False
        self.asked_to_stop = False
        self.lines: deque[str] = deque(maxlen=500)
        self._changed, self._write = changed, write
        self._log = log_file.open("w", encoding="utf-8") if log_file else None
        self.popen = subprocess.Popen(
            [*_nice(node.niceness), *graph.command_line(node, sys.executable)],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Its own group: a Ctrl-C at the terminal reaches the bringup alone, which passes it on once.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"log of {node.name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            text = line.rstrip("\n")
            self.lines.append(text)
            if self._log:
                self._log.write(text + "\n")
                self._log.flush()
            self._write(f"[{self.node.name}] {text}")
            if READY in text:
                with self._changed:
                    self.ready = True
                    self._changed.notify_all()
        self.popen.wait()
        with self._changed:
            self._changed.notify_all()
        if self._log:
            self._log.close()

    @property
    def code(self) -> int | None:
        return self.popen.poll()

    def signal(self, number: int) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, number)

    def tail(self, count: int = 8) -> str:
        return "\n".join(f"  {line}" for line in list(self.lines)[-count:])


class Bringup:
    """The processes of a graph.

    Args:
        nodes: rows from :func:`udvla_ros.graph.resolve`.
        env: environment of the nodes; default this process's. See :func:`loopback_environment`.
        write: takes each log line with its prefix; default standard error. ``lambda line: None`` is silence.
        log_dir: a folder for one ``<name>.log`` per node.
    """

    def __init__(
        self,
        nodes: Iterable[graph.ResolvedNode],
        env: Mapping[str, str] | None = None,
        *,
        write: Callable[[str], None] | None = None,
        log_dir: str | Path | None = None,
    ) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.env = dict(os.environ if env is None else env)
        self.env[PARENT_VARIABLE] = str(os.getpid())
        self.env.setdefault("PYTHONUNBUFFERED", "1")
        if "ROS_DISTRO" not in self.env:  # the wheels: their ament index lies in the virtual environment
            self.env.setdefault("AMENT_PREFIX_PATH", sys.prefix)
        self._write = write or (lambda line: print(line, file=sys.stderr, flush=True))
        self._log_dir = Path(log_dir) if log_dir else None
        self._processes: dict[str, _Process] = {}
        self._changed = threading.Condition()
        self.exit_code = 0

    def __enter__(self) -> Bringup:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, names: Sequence[str] | None = None) -> None:
        """Start the named nodes, or all; one that already runs is left alone."""
        if self._log_dir:
            self._log_dir.mkdir(parents=True, exist_ok=True)
        for name in names or self.nodes:
            old = self._processes.get(name)
            if old is not None and old.code is None:
                continue
            log = self._log_dir / f"{name}.log" if self._log_dir else None
            self._processes[name] = _Process(self.nodes[name], self.env, self._changed, self._write, log)

    def wait_ready(self, timeout: float = 120.0, names: Sequence[str] | None = None) -> None:
        """Return once every named node has said that it is ready.

        Raises:
            BringupError: a node ended first, or the time is over; the message carries the end of its log.
        """
        wanted = [self._processes[name] for name in names or self._processes]

        def settled() -> bool:
            return any(p.code is not None for p in wanted) or all(p.ready for p in wanted)

        with self._changed:
            in_time = self._changed.wait_for(settled, timeout)
        for process in wanted:
            if process.code is not None:
                process.popen.wait()
                raise BringupError(
                    f"{process.node.name} ended with code {process.code} before it was ready:\n{process.tail()}"
                )
        if not in_time:
            late = [p for p in wanted if not p.ready]
            logs = "\n".join(p.tail() for p in late)
            raise BringupError(
                f"{', '.join(p.node.name for p in late)} not ready within {timeout:g} s:\n{logs}"
            )

    def codes(self) -> dict[str, int | None]:
        """Return the exit code of each started node, None while it runs."""
        return {name: process.code for name, process in self._processes.items()}

    def pid(self, name: str) -> int:
        """Return the process id of a started node."""
        return self._processes[name].popen.pid

    def log(self, name: str) -> list[str]:
        """Return the last lines that a node wrote."""
        return list(self._processes[name].lines)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to one node, by default the one that cannot be caught."""
        self._processes[name].asked_to_stop = True
        self._processes[name].signal(number)

    def wait(self) -> int:
        """Return the exit code once an essential node has ended or all have; says so when one does.

        A node that may respawn is started again, unless it ended by itself with 0 or for what a restart cannot mend.
        """
        told: set[_Process] = set()
        again: dict[str, float] = {}
        while True:
            for name, process in list(self._processes.items()):
                code = process.code
                if code is None or process in told:
                    continue
                told.add(process)
                respawn = process.node.respawn and code not in (0, UdvlaError.exit_code) and not process.asked_to_stop
                self._write(f"[bringup] {name} ended with code {code}" + ("; it is started again" if respawn else ""))
                if respawn:
                    again[name] = time.monotonic() + RESPAWN_DELAY
                    continue
                self._note(process)
                if process.node.essential:
                    return self.exit_code
            for name in [name for name, due in again.items() if time.monotonic() >= due]:
                del again[name]
                self.start([name])
            if not again and all(process.code is not None for process in self._processes.values()):
                return self.exit_code
            with self._changed:
                self._changed.wait(0.5)

    def stop(self, patience: Sequence[float] = (5.0, 3.0, 2.0)) -> int:
        """End all nodes: SIGINT, SIGTERM, SIGKILL, each with its patience in seconds. Returns the exit code."""
        for process in self._processes.values():
            self._note(process)
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
        for number, seconds in zip(numbers, patience, strict=True):
            left = [p for p in self._processes.values() if p.code is None]
            for process in left:
                process.asked_to_stop = True
                process.signal(number)
            deadline = time.monotonic() + seconds
            for process in left:
                try:
                    process.popen.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self._write(f"[bringup] {process.node.name} did not end on {number.name}")
        for process in self._processes.values():
            process._reader.join(1.0)
        return self.exit_code

    def _note(self, process: _Process) -> None:
        code = process.code
        if code and not process.asked_to_stop and not self.exit_code:
            self.exit_code = code if code > 0 else 128 - code


def _parse_assignments(assignments: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in assignments:
        name, separator, value = text.partition(":=")
        if not separator:
            raise ConfigError(f"'{text}' is not of the form name:=value")
        pairs[name] = value
    return pairs


def _describe() -> str:
    lines = []
    for name, table in graph.GRAPHS.items():
        lines.append(f"{name}: {table.description}")
        lines += [f"  {key}:={a.default}\n      {a.description}" for key, a in table.arguments.items()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Start one graph, stay until it ends or Ctrl-C, and return the exit code of the first node that failed."""
    parser = argparse.ArgumentParser(
        prog="udvla_bringup",
        description="Start a graph of nodes where ros2 launch is missing.",
        epilog="graphs and their arguments:\n" + _describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("graph", choices=graph.GRAPHS, help="which graph")
    parser.add_argument("arguments", nargs="*", metavar="name:=value", help="arguments of the graph")
    parser.add_argument(
        "--loopback",
        action=argparse.BooleanOptionalAction,
        help="keep ROS 2 traffic on this machine (default for the sim graph)",
    )
    parser.add_argument("--log-dir", help="also write one log file per node here")
    options = parser.parse_args(argv)
    try:
        nodes = graph.resolve(options.graph, _parse_assignments(options.arguments))
        loopback = options.loopback
        if loopback is None:
            loopback = graph.GRAPHS[options.graph].loopback
        env = loopback_environment() if loopback else None
    except UdvlaError as error:
        print(f"udvla_bringup: {error}", file=sys.stderr)
        return error.exit_code

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    bringup = Bringup(nodes, env, log_dir=options.log_dir)
    try:
        bringup.start()
        bringup.wait()
    except KeyboardInterrupt:
        pass
    return bringup.stop()


if __name__ == "__main__":
    sys.exit(main())
