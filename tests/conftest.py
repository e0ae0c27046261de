"""Every test process talks on loopback, in a ROS domain of its own."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from stalls import StallWatch

REPOSITORY = Path(__file__).resolve().parents[1]


def _domain() -> int:
    """Return a domain for this process: neighbours under xdist differ, and so mostly do separate runs.

    Above 101 the ports of a domain can collide with ephemeral ones, and 0 is everybody's.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return 1 + (os.getppid() * 7 + int(worker)) % 100


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what makes a test longer than it is by default."""
    parser.addoption("--kills", type=int, default=2, help="how often tests/recorder kills the recorder")


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before anything imports rclpy."""
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.pop("ROS_LOCALHOST_ONLY", None)
    os.environ["ROS_DOMAIN_ID"] = str(_domain())
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers of xdist share the cores
    os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(REPOSITORY / "config" / "fastdds_loopback.xml")


# Examples are timed by the whole run, not one by one: a busy machine is not a failing test.
settings.register_profile("repository", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# `pytest -n0 tests/motion/test_streams.py --hypothesis-profile=thorough`: 10,800 command streams, ten minutes.
settings.register_profile("thorough", settings.get_profile("repository"))
settings.load_profile("repository")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note how many examples a fuzzer makes; the note travels with the report, from other processes too."""
    count = getattr(getattr(item, "function", None), "fuzz_examples", 0)
    if count:
        item.user_properties.append(("fuzz_examples", count))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many examples the fuzzers made."""
    reports = terminalreporter.stats.get("passed", [])
    counts = [value for r in reports if r.when == "call" for key, value in r.user_properties if key == "fuzz_examples"]
    if counts:
        terminalreporter.write_line(f"fuzzed: {sum(counts)} examples at {len(counts)} boundaries, no traceback")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout under test."""
    return REPOSITORY


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Watch the machine while a test runs that needs it in real time."""
    if item.get_closest_marker("integration") is None:
        return (yield)
    watch = StallWatch()
    try:
        return (yield)
    finally:
        item.add_report_section("call", "machine", watch.end())
