"""A launch description from the table of :mod:`udvla_ros.graph`; needs ROS 2's launch and launch_ros."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from udvla_ros import graph, resources
from udvla_ros.bringup import PARENT_VARIABLE

# What launch itself and launch_ros keep among the launch configurations.
_LAUNCHS_OWN = {"ros_namespace", "ros_remaps", "global_params", "launch-prefix", "launch-prefix-filter"}
RESPAWN_DELAY = 2.0  # s


def launch_description(name: str) -> Any:
    """Return the ``LaunchDescription`` of one graph: an argument per argument, a node per row.

    A misspelt argument of ``ros2 launch`` is refused, and an essential node that fails ends the launch with exit
    code 1. Nodes end with the launch process even where it is killed outright.
    """
    from launch import LaunchContext, LaunchDescription  # type: ignore[attr-defined,unused-ignore]
    from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
    from launch_ros.actions import Node

    table = graph.GRAPHS[name]
    given: dict[str, str] = {}

    def take(context: LaunchContext) -> None:
        # Before the arguments are declared: a default is no value that was given, and loses to a parameter file.
        given.update({key: context.launch_configurations[key] for key in table.arguments
                      if key in context.launch_configurations})  # fmt: skip
        if _is_on_the_command_line(f"{name}.launch.py"):
            typed = {text.partition(":=")[0] for text in context.argv if ":=" in text}
            graph.check_arguments(name, typed - _LAUNCHS_OWN)

    def nodes(_: LaunchContext) -> list[Node]:
        return [
            Node(
                package=graph.PACKAGE,
                executable=row.executable,
                exec_name=row.name,
                name=row.name,
                namespace=row.namespace,
                remappings=list(row.remappings),
                parameters=[*row.parameter_files, dict(row.parameters)],
                on_exit=partial(_essential_ended, row.name) if row.essential else None,
                respawn=row.respawn,
                respawn_delay=RESPAWN_DELAY,
                prefix=f"nice -n {row.niceness}" if row.niceness else None,
                output="screen",
                emulate_tty=True,
            )
            for row in graph.resolve(name, given)
        ]

    environment = [SetEnvironmentVariable(PARENT_VARIABLE, str(os.getpid()))]
    if table.loopback:
        profiles = str(resources.find("config/fastdds_loopback.xml"))
        environment += [
            SetEnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"),
            SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profiles),
        ]
    return LaunchDescription(
        [
            OpaqueFunction(function=take),
            *environment,
            *(
                DeclareLaunchArgument(key, default_value=a.default, description=a.description)
                for key, a in table.arguments.items()
            ),
            OpaqueFunction(function=nodes),
        ]
    )


def _is_on_the_command_line(file: str) -> bool:
    """Return whether this file itself was launched: in one that includes it, arguments may be of that one."""
    return any(Path(text).name == file for text in sys.argv)


def _essential_ended(name: str, event: Any, context: Any) -> Any:
    from launch.actions import EmitEvent
    from launch.events import Shutdown

    if context.is_shutdown:
        return None
    if event.returncode:
        raise RuntimeError(f"{name} ended with code {event.returncode}")  # the only way to an exit code of launch
    return [EmitEvent(event=Shutdown(reason=f"{name} ended"))]
