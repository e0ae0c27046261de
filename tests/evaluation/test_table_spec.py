"""What a table's file says, and what it may not say."""

from __future__ import annotations

import pytest

from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.tables import table_bundles, table_claims, table_spec

SHIPPED = ("decoders", "attention", "foresight", "steps", "conditions")


def values(**changes):
    rows = [{"name": name, "bundle": f"runs/{name}-{{seed}}", "made_by": "make {seed}"} for name in "ab"]
    return {"title": "T", "seeds": [0, 1], "reference": "a", "rows": rows, **changes}


def parse(**changes):
    return table_spec.parse(values(**changes), "t", "t.yaml")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_tables_are_tables_and_their_claims_can_be_read(name):
    table = table_spec.load(name)
    table_claims.check(table)
    assert table.name == name and len(table.rows) >= 3
    assert all(folder.startswith(("runs/ablations/", "models/")) for r in table.rows for folder in r.bundles.values())


def test_the_commands_that_make_the_bundles_are_commands_and_write_where_the_row_looks(repository):
    from udvla_ros.cli.main import build_parser

    for name in SHIPPED:
        for row in table_spec.load(name).rows:
            for seed, folder in row.bundles.items():
                if folder.startswith("models/"):
                    continue
                words = row.command(seed).split()
                args = build_parser(words[1]).parse_args(words[1:])
                assert f"{args.output}/bundle" == folder and args.seed == seed
                if words[1] == "train":
                    assert (repository / args.config).is_file()


def test_rows_have_one_bundle_per_training_seed_and_a_sweep_one_row_per_value():
    assert parse().row("b").bundles == {0: "runs/b-0", 1: "runs/b-1"}
    assert parse().row("b").command(1) == "make 1"
    swept = parse(sweep={"steps": [1, 4]}, reference="a-4")
    assert [row.name for row in swept.rows] == ["a-1", "a-4", "b-1", "b-4"]
    assert swept.row("b-4").decoding == {"steps": 4} and swept.row("b-4").point == ("b", 4)
    assert table_bundles.chosen(swept, "b") == ["b-1", "b-4"]
    assert table_bundles.chosen(swept, "a-4,b-1") == ["a-4", "b-1"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference": "c"}, "no row 'c'"),
        ({"reference": ""}, "reference is missing"),
        ({"rows": []}, "rows is missing"),
        ({"tabel": 1}, "unknown key tabel"),
        ({"tasks": ["juggle"]}, "not juggle"),
        ({"rows": [{"name": "a"}]}, "row 'a': bundle is missing"),
        ({"rows": [{"name": "a", "bundle": "x", "seeds": [0, 1]}]}, "2 training seeds need {seed}"),
        ({"rows": [{"name": "A b", "bundle": "x"}]}, "small letters"),
        ({"rows": [{"name": "a", "bundle": "x"}] * 2}, "two rows 'a'"),
        ({"rows": [{"name": "a", "bundle": "x", "condition": "fog"}]}, "no condition 'fog'"),
        ({"rows": [{"name": "a", "bundle": "x", "decoding": "jd3p"}]}, "decoding is a mapping"),
        ({"seeds": [0, 0]}, "different whole numbers"),
        ({"sweep": {"stairs": [1]}}, "one decoding option"),
        ({"sweep": {"steps": 4}}, "sweep is a list"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(changes, said):
    with pytest.raises(ConfigError) as error:
        parse(**changes)
    assert said in str(error.value) and ("t.yaml" in str(error.value) or "condition" in said)


@pytest.mark.parametrize("claim", ["a is best", "a > c", "steps of c <= 4", "a >= b - many points", "a > b on juggle"])
def test_a_claim_that_cannot_be_read_is_refused_before_anything_is_run(claim):
    with pytest.raises(ConfigError, match=r"cannot be read|no row 'c'"):
        table_claims.check(parse(expect=[claim]))


def test_a_missing_bundle_is_named_with_what_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        (tmp_path / f"runs/a-{seed}").mkdir(parents=True)
        (tmp_path / f"runs/a-{seed}/config.json").write_text('{"tasks": ["touch", "push"]}')
    (tmp_path / "runs/b-1").mkdir()  # a folder alone is no bundle
    there, missing = table_bundles.present(parse())
    assert [row.name for row in there.rows] == ["a"] and len(missing) == 2
    with pytest.raises(ConfigError, match=r"row 'b', training seed 0: .*/b-0; make it with: make 0 \(1 more") as error:
        table_bundles.demand(missing, "t.yaml")
    assert "\n" not in str(error.value)
    table_bundles.demand([], "t.yaml")
    # One training seed of two: the other one stays.
    (tmp_path / "runs/b-1/config.json").write_text("{}")
    there, missing = table_bundles.present(parse())
    assert there.row("b").bundles == {1: "runs/b-1"} and [each.seed for each in missing] == [0]
    # Tasks are those that all were trained for; a bundle that names none knows touch and pick.
    assert table_bundles.common_tasks(there) == ("touch",)
    (tmp_path / "runs/b-1/config.json").write_text('{"tasks": ["place"]}')
    with pytest.raises(ConfigError, match="different tasks"):
        table_bundles.common_tasks(there)
