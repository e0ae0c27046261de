"""``udvla say | engage | hold | stop | reset | status | set | scene``: a word to the running graph, without ros2cli."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from udvla_ros.errors import ConfigError

SERVICES = {
    "hold": ("arbiter_node/hold", "come to rest and take no commands"),
    "stop": ("arbiter_node/stop", "come to rest, and stay so until `udvla reset`"),
    "reset": ("arbiter_node/reset", "after a stop: hold again; moves nothing"),
}


def _parser(subparsers: argparse._SubParsersAction, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("--sim", action="store_true", help="the simulated arm's graph: look on this machine alone")
    parser.add_argument("--namespace", default="", help="of the graph")
    parser.set_defaults(run=run)
    return parser


def _joined(args: argparse.Namespace) -> AbstractContextManager[Any]:
    from udvla_ros.bringup import loopback_environment

    if args.sim:
        os.environ.update(loopback_environment())
    if "ROS_DISTRO" not in os.environ:
        os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    from udvla_ros.nodes.operate import joined

    return joined(args.namespace)


def register_say(subparsers: argparse._SubParsersAction) -> None:
    """Add ``say``."""
    parser = _parser(subparsers, "say", "tell the policy what to do", run_say)
    parser.add_argument("sentence", nargs="+", help="in quotes or not")


def run_say(args: argparse.Namespace) -> int:
    """Publish the sentence and say what comes next."""
    from udvla_ros.policy.words import means_hold, one_line

    sentence = one_line(" ".join(args.sentence))
    with _joined(args) as operator:
        if means_hold(sentence):
            print(operator.trigger("arbiter_node/hold") or "the arm comes to rest: udvla engage goes on")
            return 0
        heard = operator.say(sentence)
    print(f"said '{sentence}' to {heard} node(s); the arm moves once the policy has it: udvla engage")
    return 0


def register_engage(subparsers: argparse._SubParsersAction) -> None:
    """Add ``engage``."""
    parser = _parser(subparsers, "engage", "give the arm to the policy: it MOVES; a hand on the e-stop", run_engage)
    parser.add_argument("who", nargs="?", choices=["policy", "teleop"], default="policy", help="default: %(default)s")


def run_engage(args: argparse.Namespace) -> int:
    """Engage, or say why not."""
    with _joined(args) as operator:
        print(operator.trigger(f"arbiter_node/engage_{args.who}") or f"{args.who} has the arm; to rest: udvla hold")
    return 0


def register_service(name: str, subparsers: argparse._SubParsersAction) -> None:
    """Add ``hold``, ``stop`` or ``reset``."""
    service, text = SERVICES[name]
    _parser(subparsers, name, text, run_service).set_defaults(service=service)


def register_hold(subparsers: argparse._SubParsersAction) -> None:
    """Add ``hold``."""
    register_service("hold", subparsers)


def register_stop(subparsers: argparse._SubParsersAction) -> None:
    """Add ``stop``."""
    register_service("stop", subparsers)


def register_reset(subparsers: argparse._SubParsersAction) -> None:
    """Add ``reset``."""
    register_service("reset", subparsers)


def run_service(args: argparse.Namespace) -> int:
    """Call the service."""
    with _joined(args) as operator:
        print(operator.trigger(args.service) or "done")
    return 0


def register_status(subparsers: argparse._SubParsersAction) -> None:
    """Add ``status``."""
    parser = _parser(subparsers, "status", "who has the arm, what it is asked for, and how the nodes are", run_status)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, all diagnostics too")


def run_status(args: argparse.Namespace) -> int:
    """Print a few lines; 1 where a node reports an error."""
    with _joined(args) as operator:
        told = operator.status()
    reason = f" ({told['reason']})" if told["reason"] else ""
    print(f"mode {told['mode']}{reason}\ninstruction: {told['instruction'] or 'none; udvla say ...'}")
    if told["scene"]:
        scene = told["scene"]
        print(f"scene: {scene.get('task')}, seed {scene.get('seed')}, {scene.get('state')}")
    if told["recorder"]:
        print(f"recorder: {told['recorder']}")
    for name, node in told["nodes"].items():
        print(f"{name}: {('ok', 'WARN', 'ERROR', 'STALE')[min(node['level'], 3)]}, {node['message']}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return int(any(node["level"] >= 2 for node in told["nodes"].values()))


def register_set(subparsers: argparse._SubParsersAction) -> None:
    """Add ``set``."""
    parser = _parser(subparsers, "set", "turn knobs while it runs, all or none, such as denoise_steps=4", run_set)
    parser.add_argument("settings", nargs="+", metavar="NAME=VALUE", help="parameters of the node")
    parser.add_argument("--node", default="policy_node", help="whose (default: %(default)s)")


def run_set(args: argparse.Namespace) -> int:
    """Set, or say what is wrong."""
    texts = {}
    for setting in args.settings:
        name, separator, value = setting.partition("=")
        if not (name and separator):
            raise ConfigError(f"'{setting}' is not of the form NAME=VALUE, such as denoise_steps=4")
        texts[name] = value
    with _joined(args) as operator:
        for name, value in operator.set(args.node, texts).items():
            print(f"{args.node}: {name} = {value}")
    return 0


def register_scene(subparsers: argparse._SubParsersAction) -> None:
    """Add ``scene``."""
    parser = _parser(subparsers, "scene", "set the simulated table anew; the arm stops, then holds", run_scene)
    parser.set_defaults(sim=True)
    parser.add_argument("--seed", type=int, help="where things lie")
    parser.add_argument("--task", help="kind/colour, kind or colour, such as pick/red")
    parser.add_argument("--instruction", help="its sentence (default: one of the task's)")


def run_scene(args: argparse.Namespace) -> int:
    """Set the scene."""
    with _joined(args) as operator:
        told = operator.scene(seed=args.seed, task=args.task, instruction=args.instruction)
    print(f"scene {told['number']}: {told['task']}, seed {told['seed']}, '{told['instruction']}'")
    print("next: udvla engage --sim")
    return 0
