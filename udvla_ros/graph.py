"""The table of nodes: what the launch files and ``udvla_bringup`` both start, so that they cannot drift.

A row may name arguments in braces (``"{bundle}"``); :func:`resolve` fills them in, drops the rows whose
condition is false and finds the parameter files. Nothing here needs ROS.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from udvla_ros import resources, schema
from udvla_ros.errors import ConfigError
from udvla_ros.teleop.terminal import NO_TERMINAL

PACKAGE = "udvla_ros"
TELEOP = ("none", "joy", "leader")


@dataclass(frozen=True)
class Argument:
    """One argument of a graph: its default (always text, as in launch) and what it is for."""

    default: str
    description: str


@dataclass(frozen=True)
class NodeEntry:
    """One row: which executable runs under which name, with what.

    ``condition`` names an argument that must be true, ``unless`` an argument and the value that leaves the row
    out. An ``essential`` node takes the graph down with it;
    the arbiter must outlive the policy, so the policy is not essential. One that may ``respawn`` is started again
    when it dies, if the argument of that name says so. ``niceness`` is added to the process's: inference, which
    takes every core it gets, must not delay the arbiter.
    """

    executable: str
    module: str
    name: str
    namespace: str = "{namespace}"
    remappings: tuple[tuple[str, str], ...] = ()
    parameter_files: tuple[str, ...] = ()
    parameters: tuple[tuple[str, str, type], ...] = ()
    condition: str | None = None
    unless: tuple[str, str] | None = None
    essential: bool = True
    respawn: bool = False
    niceness: int = 0


@dataclass(frozen=True)
class Graph:
    """A named graph: its arguments and its rows."""

    description: str
    arguments: Mapping[str, Argument]
    nodes: tuple[NodeEntry, ...]
    loopback: bool


@dataclass(frozen=True)
class ResolvedNode:
    """A row ready to start: arguments filled in, parameter files found.

    ``parameters`` stand above the files: arguments that were given, and defaults that no file of the user's names.
    """

    executable: str
    module: str
    name: str
    namespace: str = ""
    remappings: tuple[tuple[str, str], ...] = ()
    parameter_files: tuple[str, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    essential: bool = True
    respawn: bool = False
    niceness: int = 0


_COMMON = {
    "namespace": Argument("", "namespace of all nodes"),
    "bundle": Argument("models/udvla-nano-ur5e", "checkpoint bundle: a folder, or a shipped one by its path"),
    "device": Argument("cpu", "where the policy runs: cpu, cuda, cuda:0"),
    "server": Argument("", "ws://host:port of `udvla serve`: the policy runs there, policy_node only asks"),
    "policy": Argument("true", "start policy_node here (false: it runs on another machine)"),
    "autostart": Argument("true", "configure and activate policy_node at start, without a lifecycle manager"),
    "teleop": Argument("none", "device to take over with: none, joy or leader; a keyboard needs `udvla teleop`"),
    "front_image": Argument("front/image_raw", "where the front camera's images come from"),
    "wrist_image": Argument("wrist/image_raw", "where the wrist camera's images come from"),
    "dry_run": Argument("false", "plan and show commands, but send the controller nothing"),
    "respawn": Argument("true", "start policy_node again when it dies; the arm holds until it is engaged again"),
    "record": Argument("false", "start recorder_node: a bag for each episode"),
    "record_dir": Argument("runs/bags", "folder for the bags"),
    "record_auto": Argument("true", "record whenever the policy has the arm; false: only on ~/start"),
    "console": Argument("false", "start console_node: the operator's page on 127.0.0.1"),
    "console_port": Argument("8080", "port of the operator's page"),
    "params_file": Argument("", "a parameter file of your own: stands above the defaults here, below what is given"),
}

# The topics of the shipped robot files to those of the cameras; a file with names of its own needs no arguments.
_CAMERAS = (("front/image_raw", "{front_image}"), ("wrist/image_raw", "{wrist_image}"))

_ARBITER = NodeEntry(
    executable="arbiter_node",
    module="udvla_ros.nodes.arbiter_node",
    name="arbiter_node",
    parameter_files=("config/arbiter_node.yaml", "{params_file}"),
    parameters=(("robot", "{robot}", str), ("dry_run", "{dry_run}", bool), ("speed", "{speed}", float)),
)
_POLICY = NodeEntry(
    executable="policy_node",
    module="udvla_ros.nodes.policy_node",
    name="policy_node",
    remappings=_CAMERAS,
    parameter_files=("config/policy_node.yaml", "{params_file}"),
    parameters=(
        ("robot", "{robot}", str),
        ("bundle", "{bundle}", str),
        ("device", "{device}", str),
        ("server", "{server}", str),
        ("autostart", "{autostart}", bool),
    ),
    condition="policy",
    essential=False,
    respawn=True,
    niceness=5,
)
_SIM = NodeEntry(
    executable="sim_node",
    module="udvla_ros.nodes.sim_node",
    name="sim_node",
    remappings=_CAMERAS,
    parameter_files=("config/sim_node.yaml", "{params_file}"),
    parameters=(
        ("robot", "{robot}", str),
        ("seed", "{seed}", int),
        ("task", "{task}", str),
        ("instruction", "{instruction}", str),
    ),
)

_TELEOP = NodeEntry(
    executable="teleop_node",
    module="udvla_ros.nodes.teleop_node",
    name="teleop_node",
    parameter_files=("config/teleop_node.yaml", "{params_file}"),
    parameters=(("robot", "{robot}", str), ("source", "{teleop}", str)),
    unless=("teleop", "none"),
    essential=False,  # a device that goes away is a HOLD, not the end
)

_RECORDER = NodeEntry(
    executable="recorder_node",
    module="udvla_ros.nodes.recorder_node",
    name="recorder_node",
    remappings=_CAMERAS,
    parameter_files=("config/recorder_node.yaml", "{params_file}"),
    parameters=(
        ("robot", "{robot}", str),
        ("record_dir", "{record_dir}", str),
        ("auto", "{record_auto}", bool),
    ),
    condition="record",
    essential=False,
    niceness=3,  # it can wait: what it has not taken yet waits in its subscriptions
)

_CONSOLE = NodeEntry(
    executable="console_node",
    module="udvla_ros.nodes.console_node",
    name="console_node",
    remappings=_CAMERAS,
    parameter_files=("{params_file}",),
    parameters=(("robot", "{robot}", str), ("port", "{console_port}", int), ("episodes", "{record_dir}", str)),
    condition="console",
    essential=False,
    niceness=8,  # people can wait; inference and recorder come first
)

GRAPHS: dict[str, Graph] = {
    "sim": Graph(
        description="the simulated UR5e with its cameras and controller, the arbiter and the policy",
        arguments={
            **_COMMON,
            "robot": Argument("config/robots/ur5e_sim.yaml", "robot file"),
            "speed": Argument("1.0", "fraction of the velocity limits in use"),
            "seed": Argument("0", "seed of the first episode's scene"),
            "task": Argument(
                "touch,pick,push,place", "of the first episode: kind/colour or a part of it, several with commas"
            ),
            "instruction": Argument("", "sentence of the first episode; empty: one of the task's phrasings"),
        },
        nodes=(_SIM, _ARBITER, _POLICY, _TELEOP, _RECORDER, _CONSOLE),
        loopback=True,
    ),
    "policy": Graph(
        description="the arbiter and the policy for a robot whose driver and cameras already run",
        arguments={
            **_COMMON,
            "robot": Argument("config/robots/ur5e.yaml", "robot file: ur5e, panda, so101, or a path of your own"),
            "speed": Argument("0.1", "fraction of the velocity limits in use; raise it when docs/real_arm.md is done"),
        },
        nodes=(_ARBITER, _POLICY, _TELEOP, _RECORDER, _CONSOLE),
        loopback=False,
    ),
    "teleop": Graph(
        description="the operator's gamepad or leader arm, beside an arbiter that already runs",
        arguments={
            "namespace": _COMMON["namespace"],
            "robot": Argument("config/robots/ur5e.yaml", "robot file"),
            "teleop": Argument("joy", "device: joy or leader; a keyboard needs a terminal: `udvla teleop`"),
            "params_file": _COMMON["params_file"],
        },
        nodes=(_TELEOP,),
        loopback=False,
    ),
}

_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


def truth(text: str, what: str) -> bool:
    """Read a yes or no as launch does.

    Raises:
        ConfigError: neither.
    """
    word = text.strip().lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ConfigError(f"{what}:={text} is neither true nor false")


def resolve(graph: str, arguments: Mapping[str, str] | None = None) -> list[ResolvedNode]:
    """Fill the arguments into the rows of one graph and return the nodes to start, in order.

    Raises:
        ConfigError: no such graph or argument, or a parameter file that does not exist.
    """
    if graph not in GRAPHS:
        raise ConfigError(f"no graph '{graph}'; there are: {', '.join(GRAPHS)}")
    table = GRAPHS[graph]
    given = dict(arguments or {})
    check_arguments(graph, given)
    values = {name: argument.default for name, argument in table.arguments.items()} | given
    _check_teleop(values.get("teleop", "none"))
    own = _parameter_file(values["params_file"])
    nodes = []
    for row in table.nodes:
        if row.unless is not None and values[row.unless[0]] == row.unless[1]:
            continue
        if row.condition is not None and not truth(values[row.condition], row.condition):
            continue
        files = [_fill(path, values) for path in row.parameter_files]
        named = _named_for(own, row.name, _fill(row.namespace, values))
        nodes.append(
            ResolvedNode(
                executable=row.executable,
                module=row.module,
                name=row.name,
                namespace=_fill(row.namespace, values),
                remappings=tuple((_fill(a, values), _fill(b, values)) for a, b in row.remappings),
                parameter_files=tuple(str(resources.find(path)) for path in files if path),
                parameters={
                    name: _typed(_fill(text, values), kind, name)
                    for name, text, kind in row.parameters
                    if name not in named or _arguments_in(text) & given.keys()
                },
                essential=row.essential,
                respawn=row.respawn and truth(values["respawn"], "respawn"),
                niceness=row.niceness,
            )
        )
    return nodes


def check_arguments(graph: str, names: Collection[str]) -> None:
    """Refuse arguments that a graph does not have.

    Raises:
        ConfigError: names them, and what was probably meant.
    """
    known = GRAPHS[graph].arguments
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ConfigError(f"graph '{graph}' has no argument {unknown[0]}; {schema.meant(unknown[0], known)}")


def command_line(node: ResolvedNode, python: str) -> list[str]:
    """Return the command that starts a node as a Python module with its ROS arguments."""
    arguments = ["-r", f"__node:={node.name}"]
    if node.namespace:
        arguments += ["-r", f"__ns:=/{node.namespace.strip('/')}"]
    for source, target in node.remappings:
        arguments += ["-r", f"{source}:={target}"]
    for path in node.parameter_files:
        arguments += ["--params-file", path]
    for name, value in node.parameters.items():
        arguments += ["-p", f"{name}:={_yaml(value)}"]
    return [python, "-m", node.module, "--ros-args", *arguments]


def _parameter_file(path: str) -> dict[str, object]:
    """Read a parameter file: node name or pattern -> what it says of that node."""
    if not path:
        return {}
    content = schema.read_yaml(resources.find(path)) or {}
    if not isinstance(content, dict) or not all(
        isinstance(said, dict) and isinstance(said.get("ros__parameters", {}), dict) for said in content.values()
    ):
        raise ConfigError(f"{path}: not of the form 'node: {{ros__parameters: {{name: value}}}}'")
    return content


def _named_for(content: Mapping[str, object], node: str, namespace: str) -> set[str]:
    """Return the parameters that a parameter file sets for one node."""
    full = "/".join(["", *namespace.strip("/").split("/"), node]).replace("//", "/")
    named: set[str] = set()
    for pattern, said in content.items():
        words = re.escape(pattern.strip("/")).split("/")
        expression = "".join("(/[^/]+)*" if w == r"\*\*" else "/" + w.replace(r"\*", "[^/]+") for w in words)
        if re.fullmatch(expression, full) or pattern == node:
            named |= set(said.get("ros__parameters", {}))  # type: ignore[attr-defined]
    return named


def _check_teleop(device: str) -> None:
    if device == "keyboard":
        raise ConfigError(f"teleop:=keyboard: {NO_TERMINAL}")
    if device not in TELEOP:
        raise ConfigError(f"teleop:={device} is not one of {', '.join(TELEOP)}")


def _arguments_in(template: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", template))


def _fill(template: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        return values[match.group(1)]

    return re.sub(r"\{(\w+)\}", value, template)


def _typed(text: str, kind: type, name: str) -> object:
    if kind is bool:
        return truth(text, name)
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{name}:={text} is not a number") from None


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value)
