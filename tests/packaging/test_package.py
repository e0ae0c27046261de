"""The repository is an ament_python package for colcon and an ordinary one for pip, with nothing left out."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest

import udvla_ros
from udvla_ros import graph

NODES = {row.executable for table in graph.GRAPHS.values() for row in table.nodes}


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**clean, **env}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory, repository) -> Path:
    """A copy of what a clone holds, so that building leaves the checkout alone."""
    target = tmp_path_factory.mktemp("source") / "udvla_ros"
    ignore = shutil.ignore_patterns(
        ".*cache", ".git", ".venv", ".hypothesis", "__pycache__", "*.egg-info", "build", "install", "log", "runs",
        "data", "ros2_ws", "tests", "docs",
    )  # fmt: skip
    shutil.copytree(repository, target, ignore=ignore, symlinks=True)
    return target


def test_package_xml_is_format_3_and_agrees_with_setup(repository):
    root = ElementTree.parse(repository / "package.xml").getroot()
    assert root.get("format") == "3"
    assert root.findtext("name") == "udvla_ros" and root.findtext("license") == "Apache-2.0"
    assert root.findtext("export/build_type") == "ament_python"
    setup = (repository / "setup.py").read_text()
    assert root.findtext("version") == udvla_ros.__version__
    assert f'version="{udvla_ros.__version__}"' in setup


def test_messages_that_are_imported_are_depended_on(repository):
    root = ElementTree.parse(repository / "package.xml").getroot()
    depends = {element.text for element in root if element.tag.endswith("depend")}
    imported = set()
    pattern = re.compile(r"^(?:from|import) (\w+(?:_msgs|_srvs|_interfaces)|rclpy)\b", re.M)
    for path in (repository / "udvla_ros" / "nodes").glob("*.py"):
        imported |= set(pattern.findall(path.read_text()))
    assert imported - {"builtin_interfaces"} <= depends
    wheels = (repository / "setup.py").read_text()
    for name in imported - {"action_msgs", "builtin_interfaces", "rcl_interfaces"}:  # these come with rclpy
        assert f'"{name.replace("_", "-")}"' in wheels, name


def test_executables_go_where_ament_looks(repository):
    config = configparser.ConfigParser()
    config.read(repository / "setup.cfg")
    assert config["develop"]["script_dir"] == config["install"]["install_scripts"] == "$base/lib/udvla_ros"
    assert (repository / "resource" / "udvla_ros").is_file()


def test_every_folder_of_modules_is_a_package(repository):
    folders = {path.parent for path in (repository / "udvla_ros").rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_workspace_links_back_and_is_found_as_ament_python(repository, tmp_path):
    pytest.importorskip("colcon_ros")
    link = repository / "ros2_ws" / "src" / "udvla_ros"
    assert link.is_symlink() and link.resolve() == repository.resolve()
    listed = run(
        sys.executable, "-m", "colcon", "list", cwd=repository / "ros2_ws",
        COLCON_HOME=str(tmp_path), COLCON_LOG_PATH=str(tmp_path / "log"),
    )  # fmt: skip
    assert listed.split() == ["udvla_ros", "src/udvla_ros", "(ros.ament_python)"]


@pytest.mark.slow
def test_colcon_build_installs_nodes_launch_files_and_configuration(source, tmp_path):
    pytest.importorskip("colcon_ros")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "udvla_ros").symlink_to(source)
    run(sys.executable, "-m", "colcon", "build", cwd=tmp_path, COLCON_HOME=str(tmp_path / "home"))
    prefix = tmp_path / "install" / "udvla_ros"
    executables = {path.name for path in (prefix / "lib" / "udvla_ros").iterdir()}
    assert executables >= NODES | {"udvla", "udvla_bringup"}
    share = prefix / "share" / "udvla_ros"
    for name in ("package.xml", "launch/sim.launch.py", "config/fastdds_loopback.xml", "config/robots/ur5e_sim.yaml"):
        assert (share / name).is_file(), name
    assert (prefix / "share" / "ament_index" / "resource_index" / "packages" / "udvla_ros").is_file()
    sourced = f". {tmp_path}/install/setup.sh && command -v udvla && udvla robot check ur5e_sim"
    told = run("sh", "-c", sourced, cwd=tmp_path)
    assert told.startswith(str(prefix / "bin" / "udvla")) and "6 joints" in told


@pytest.mark.slow
def test_wheel_holds_the_package_and_its_shared_files(source, tmp_path):
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*pip, "-w", tmp_path, ".", cwd=source)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shared = [name.partition(".data/data/")[2] for name in names if ".data/data/" in name]
    for name in ("launch/sim.launch.py", "launch/policy.launch.py", "config/robots/ur5e_sim.yaml", "package.xml"):
        assert f"share/udvla_ros/{name}" in shared, name
    packages = {Path(name).parent for name in names if name.endswith("__init__.py")}
    have = {p.parent.relative_to(source) for p in (source / "udvla_ros").rglob("__init__.py")}
    assert packages == have
    assert "udvla_ros/py.typed" in names
    scripts = next(name for name in names if name.endswith("entry_points.txt"))
    text = zipfile.ZipFile(wheel).read(scripts).decode()
    assert all(f"{name} = " in text for name in NODES | {"udvla", "udvla_bringup"})
    assert not [name for name in names if name.startswith(("tests", "ros2_ws"))]


def test_shipped_models_are_shipped_whole(repository):
    source = (repository / "setup.py").read_text()
    assert 'shared_files("launch", "config", "models")' in source


def make(repository: Path, *arguments: str, **env: str) -> str:
    return run("make", "-n", *arguments, cwd=repository, **env)


def test_make_demo_passes_what_was_chosen(repository):
    assert "-m udvla_ros demo --episodes 3 --seed 9" in make(repository, "demo", "EPISODES=3", "SEED=9")


@pytest.mark.parametrize(
    ("distribution", "extras"), [("", "ros,ros-test,sim,train,vla-eval,dev"), ("jazzy", "sim,train,vla-eval,dev")]
)
def test_a_sourced_ros_is_never_mixed_with_the_wheels(repository, distribution, extras):
    env = {"ROS_DISTRO": distribution} if distribution else {}
    said = make(repository, "-B", "setup", **env)
    assert f'-e ".[{extras}]"' in said
    assert ("--system-site-packages" in said) == bool(distribution)


def test_ci_runs_the_tests(repository):
    script = repository / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "exec make test" in script.read_text()
    assert "Apache License" in (repository / "LICENSE").read_text()
