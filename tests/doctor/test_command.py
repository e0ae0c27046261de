"""The command line of `udvla doctor`, without a graph."""

from __future__ import annotations

import pytest

from udvla_ros.cli import main as cli
from udvla_ros.cli.doctor import _bundle_config
from udvla_ros.errors import BundleError


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--robot", "ur5e", "--timeout", "0"], "number of seconds"),
        (["--robot", "ur5e", "--timeout", "soon"], "number of seconds"),
        (["--robot", "ur5e", "--remap", "a=b"], "FROM:=TO"),
    ],
)
def test_wrong_usage(options, said, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", *options])
    assert end.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--robot", "no_such"], ["--robot", "ur5e", "--bundle", "config"]])
def test_what_is_not_there_is_one_line(options, capsys):
    pytest.importorskip("rclpy")
    assert cli.main(["doctor", *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_shipped_bundle_is_read_without_its_weights():
    config = _bundle_config("models/udvla-nano-ur5e")
    assert config.cameras == ("front", "wrist") and config.action_space == "tcp_delta"
    with pytest.raises(BundleError, match="no config"):
        _bundle_config("config")
