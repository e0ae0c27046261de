"""The arbiter and the policy beside a running robot driver: ``ros2 launch udvla_ros policy.launch.py``."""

from udvla_ros.launch_table import launch_description


def generate_launch_description():
    """Return the rows of graph 'policy'."""
    return launch_description("policy")
