"""The simulated UR5e, the arbiter and the policy: ``ros2 launch udvla_ros sim.launch.py``."""

from udvla_ros.launch_table import launch_description


def generate_launch_description():
    """Return the rows of graph 'sim'."""
    return launch_description("sim")
