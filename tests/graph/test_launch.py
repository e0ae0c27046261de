"""The launch files under the real launch and launch_ros, with stand-ins for the nodes' executables.

Where they are not installed these are skipped: ``apt install ros-jazzy-launch-ros`` and a sourced ROS 2, or the folders
``launch/launch``, ``launch_ros/launch_ros`` and ``composition_interfaces`` of their sources on PYTHONPATH.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from udvla_ros import graph
from udvla_ros.bringup import PARENT_VARIABLE

WHERE = "needs ROS 2's launch and launch_ros: source a ROS 2 Jazzy, or put their public sources on PYTHONPATH"
launch = pytest.importorskip("launch", reason=WHERE)
pytest.importorskip("launch_ros.actions", reason=WHERE)

# As `ros2 launch udvla_ros FILE ARGUMENTS` starts it.
ROS2_LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
file, *arguments = sys.argv[1:]
service = LaunchService(argv=arguments)
given = [tuple(text.split(":=", 1)) for text in arguments]
service.include_launch_description(LaunchDescription([
    IncludeLaunchDescription(AnyLaunchDescriptionSource(file), launch_arguments=given)]))
sys.exit(service.run())
"""

# Says who it is and with what it was started; then ends as its file of orders says, or on SIGINT.
NODE = f"""#!{sys.executable}
import os, signal, sys
from pathlib import Path
name = next(a.split("=")[1] for a in sys.argv if a.startswith("__node:="))
here = Path(__file__).parent
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
files = [Path(b) for a, b in zip(sys.argv, sys.argv[1:]) if a == "--params-file"]
said = " ".join(f.read_text() for f in files if f.name.startswith("launch_params"))
print("started", name, os.environ["{PARENT_VARIABLE}"] == str(os.getppid()), " ".join(said.split()), flush=True)
order = here / (name + ".ends")
if order.exists():
    code = int(order.read_text())
    order.unlink()
    sys.exit(code)
while True:
    signal.pause()
"""


@pytest.fixture
def prefix(tmp_path):
    """An installed udvla_ros whose executables are stand-ins."""
    library = tmp_path / "lib" / graph.PACKAGE
    library.mkdir(parents=True)
    marker = tmp_path / "share/ament_index/resource_index/packages" / graph.PACKAGE
    marker.parent.mkdir(parents=True)
    marker.touch()
    for executable in {row.executable for table in graph.GRAPHS.values() for row in table.nodes}:
        (library / executable).write_text(NODE)
        (library / executable).chmod(0o755)
    return tmp_path


@pytest.fixture
def ros2_launch(prefix, repository):
    """Start a launch file as ``ros2 launch`` does; yields a function that returns its process."""
    running = []

    def start(name: str, *arguments: str) -> subprocess.Popen:
        env = {**os.environ, "AMENT_PREFIX_PATH": str(prefix), "ROS_LOG_DIR": str(prefix / "log")}
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", ROS2_LAUNCH, str(repository / "launch" / f"{name}.launch.py"), *arguments],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(process: subprocess.Popen, wanted: set[str]) -> list[str]:
    """Read the log until every node of ``wanted`` has said that it started."""
    lines: list[str] = []
    while wanted - {line.split("started ")[1].split()[0] for line in lines if "started " in line}:
        line = process.stdout.readline()
        assert line, "".join(lines)
        lines.append(line)
    return lines


@pytest.mark.parametrize("name", graph.GRAPHS)
def test_starts_the_rows_under_their_names_and_ends_with_them(ros2_launch, name):
    rows = {row.name for row in graph.resolve(name)}
    process = ros2_launch(name)
    lines = until(process, rows)
    for row in rows:
        (line,) = (line for line in lines if f"started {row} " in line)
        assert line.startswith(f"[{row}-") and f"started {row} True" in line  # its parent is the launch process
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_misspelt_argument_is_refused(ros2_launch):
    process = ros2_launch("policy", "dryrun:=true")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "no argument dryrun; did you mean dry_run?" in output and "started" not in output


def test_an_argument_of_an_including_file_is_no_mistake(ros2_launch, tmp_path, repository):
    (tmp_path / "mine.launch.py").write_text(
        "from launch import LaunchDescription\n"
        "from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription\n"
        "def generate_launch_description():\n"
        "    return LaunchDescription([DeclareLaunchArgument('robot_ip'),\n"
        f"        IncludeLaunchDescription({str(repository / 'launch' / 'policy.launch.py')!r},\n"
        "            launch_arguments=[('speed', '0.3')])])\n"
    )
    process = ros2_launch(str(tmp_path / "mine"), "robot_ip:=10.0.0.1")
    lines = until(process, {"arbiter_node", "policy_node"})
    assert any("started arbiter_node" in line and "speed: 0.3" in line for line in lines)


def test_a_parameter_file_stands_above_defaults(ros2_launch, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("/**/arbiter_node: {ros__parameters: {speed: 0.77}}\n")
    lines = until(ros2_launch("policy", f"params_file:={mine}"), {"arbiter_node", "policy_node"})
    (line,) = (line for line in lines if "started arbiter_node" in line)
    assert "speed" not in line and "dry_run: false" in line


def test_an_arbiter_that_fails_is_an_exit_code(ros2_launch, prefix):
    (prefix / "lib" / graph.PACKAGE / "arbiter_node.ends").write_text("2")
    process = ros2_launch("policy")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1 and "arbiter_node ended with code 2" in output


def test_a_policy_that_dies_is_started_again(ros2_launch, prefix):
    (prefix / "lib" / graph.PACKAGE / "policy_node.ends").write_text("1")
    process = ros2_launch("policy")
    until(process, {"arbiter_node", "policy_node"})
    until(process, {"policy_node"})
