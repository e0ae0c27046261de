"""requirements.lock names a version that fits for all that setup.py asks for, and that is what is installed."""

from __future__ import annotations

import os
import re
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def rows(environment: dict[str, str] | None = None) -> dict[str, str]:
    """Return {package: version} of the lock's rows whose marker holds in the environment."""
    locked = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            row = Requirement(line)
            if row.marker is None or row.marker.evaluate(environment):
                (only,) = row.specifier
                assert only.operator == "==", line
                locked[canonicalize_name(row.name)] = only.version
    return locked


def asked() -> list[Requirement]:
    """Return what setup.py asks for, extras included, as the installed package says it."""
    found = [Requirement(line) for line in metadata.requires("udvla_ros") or ()]
    assert len(found) > 20
    return found


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_lock_fits_setup(python: str) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": "x86_64",
            "platform_system": "Linux", "sys_platform": "linux", "platform_python_implementation": "CPython"}
    locked = rows(here)
    for want in asked():
        marker = re.sub(r"\s*(and\s+)?extra\s*==\s*\"[^\"]+\"", "", str(want.marker or ""))
        if "python_" in marker and not Requirement(f"x; {marker}").marker.evaluate(here):
            continue
        name = canonicalize_name(want.name)
        assert name in locked, f"{want.name} is not in requirements.lock: run `make lock`"
        assert want.specifier.contains(locked[name], prereleases=True), f"{want} against {locked[name]}"


@pytest.mark.skipif("UDVLA_UNLOCKED" in os.environ, reason="runs without the lock on purpose")
def test_installed_is_what_the_lock_names() -> None:
    locked = rows()
    differs = {}
    for package in metadata.distributions(path=[sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]):
        name = canonicalize_name(package.metadata["Name"])
        if name in locked and package.version.split("+")[0] != locked[name]:
            differs[name] = (package.version, locked[name])
    assert not differs, f"installed, locked: {differs}; run `make setup` in a fresh .venv"
