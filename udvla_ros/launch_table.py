"""A launch description from the table of :mod:`udvla_ros.graph`; needs ROS 2's launch and launch_ros."""

from __future__ import annotations

from typing import Any

from udvla_ros import graph, resources


def launch_description(name: str) -> Any:
    """Return the ``LaunchDescription`` of one graph: an argument per argument, a node per row."""
    from launch import LaunchContext, LaunchDescription
    from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, SetEnvironmentVariable
    from launch.events import Shutdown
    from launch.substitutions import LaunchConfiguration
    from launch_ros.actions import Node

    table = graph.GRAPHS[name]

    def nodes(context: LaunchContext) -> list[Node]:
        values = {key: LaunchConfiguration(key).perform(context) for key in table.arguments}
        return [
            Node(
                package=graph.PACKAGE,
                executable=row.executable,
                name=row.name,
                namespace=row.namespace,
                remappings=list(row.remappings),
                parameters=[*row.parameter_files, dict(row.parameters)],
                on_exit=[EmitEvent(event=Shutdown(reason=f"{row.name} ended"))] if row.essential else None,
                prefix=f"nice -n {row.niceness}" if row.niceness else None,
                output="screen",
                emulate_tty=True,
            )
            for row in graph.resolve(name, values)
        ]

    environment = []
    if table.loopback:
        environment = [
            SetEnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"),
            SetEnvironmentVariable(
                "FASTRTPS_DEFAULT_PROFILES_FILE", str(resources.find("config/fastdds_loopback.xml"))
            ),
        ]
    return LaunchDescription(
        [
            *environment,
            *(
                DeclareLaunchArgument(key, default_value=a.default, description=a.description)
                for key, a in table.arguments.items()
            ),
            OpaqueFunction(function=nodes),
        ]
    )
