"""A gamepad or a leader arm beside a running arbiter: ``ros2 launch udvla_ros teleop.launch.py teleop:=joy``."""

from udvla_ros.launch_table import launch_description


def generate_launch_description():
    """Return the rows of graph 'teleop'."""
    return launch_description("teleop")
