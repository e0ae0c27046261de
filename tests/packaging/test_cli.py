"""The ``udvla`` command: quick to help, one line for what the user can mend, exit codes that mean something."""

from __future__ import annotations

import argparse
import subprocess
import sys
import types

import pytest

from udvla_ros.cli import main as cli
from udvla_ros.errors import ConfigError


@pytest.fixture
def command(monkeypatch):
    """Install a subcommand ``try`` whose function is set by the test."""
    module = types.ModuleType("udvla_ros.cli.try_it")
    state = types.SimpleNamespace(run=lambda args: None)

    def register(subparsers):
        parser = subparsers.add_parser("try", help="a test")
        parser.add_argument("--count", type=int, default=1)
        parser.set_defaults(run=lambda args: state.run(args))

    module.register = register
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.COMMANDS, "try", (module.__name__, "a test"))
    return state


def raises(error: BaseException):
    def run(args):
        raise error

    return run


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (1, 1)])
def test_result_is_the_exit_code(command, result, code):
    command.run = lambda args: result
    assert cli.main(["try", "--count", "3"]) == code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("x.yaml: joints is missing; add it"), 2, "udvla try: x.yaml: joints is missing; add it"),
        (ModuleNotFoundError("no", name="mujoco"), 2, "pip install 'udvla_ros[sim]'"),
        (ModuleNotFoundError("no", name="accelerate.utils"), 2, "pip install 'udvla_ros[train]'"),
        (ModuleNotFoundError("no", name="sensor_msgs.msg"), 2, "udvla_ros[ros]"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_the_user_can_mend_is_one_line(command, capsys, error, code, said):
    command.run = raises(error)
    assert cli.main(["try"]) == code
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("a bug"), ModuleNotFoundError("no", name="udvla_ros.nowhere")])
def test_bugs_keep_their_traceback(command, error):
    command.run = raises(error)
    with pytest.raises(type(error)):
        cli.main(["try"])


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["try", "--count", "many"]])
def test_wrong_usage_is_2(command, arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_each_command_of_the_table_registers_itself(name):
    subparsers = argparse.ArgumentParser().add_subparsers()
    cli.register_of(cli.COMMANDS[name][0])(subparsers)
    assert list(subparsers.choices) == [name]


def test_help_lists_the_commands_and_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['udvla', '--help']\n"
        "from udvla_ros.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: print('LOADED', *sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, _, loaded = done.stdout.partition("LOADED")
    assert all(name in text for name in cli.COMMANDS)
    assert not set(loaded.split()) & {"torch", "numpy", "mujoco", "rclpy", "transformers", "cv2"}
