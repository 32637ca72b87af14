"""sds3d recipes, and generate --recipe."""

import json
import shlex

import pytest

from sds3d.config import read_recipe, recipe_names
from sds3d_app.cli import invoke


def test_the_list_names_each_recipe_with_its_source_and_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["recipes", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["recipes"]}
    assert list(rows) == recipe_names()
    assert rows["magic3d"]["forwards"] == 10_000 * 2 + 5000 * 2
    assert [stage["forwards"] for stage in rows["mvdream"]["stages"]] == [10_000 * 4 * 2]
    assert invoke(["recipes", "list"]) == 0
    said = capsys.readouterr().out
    for name, row in rows.items():
        assert all(source in said for source in row["main_sources"]), name
        assert f"{row['forwards']:,} forwards of {row['prior']}" in said
        assert invoke([*shlex.split(row["command"])[1:], "--print-config", "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed["sources"]["guidance.name"] == f"recipe {name}"


def test_show_has_every_value_with_its_origin_and_what_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["recipes", "show", "csd"]) == 0
    said, recipe = capsys.readouterr().out, read_recipe("csd")
    for _, key, row in recipe.rows():
        assert f"{key} = {json.dumps(row.value)}" in said
        assert f"# {row.origin}{f'; {row.why}' if row.why else ''}\n" in said
    assert all(text in said for text in (*recipe.sources.values(), *recipe.left_out))


def test_a_recipe_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["recipes", "show", "magic"], ["generate", "a mug", "--recipe", "magic"]):
        assert invoke(command) == 2
        assert "did you mean magic3d?" in capsys.readouterr().err
    assert invoke(["priors", "show", "kxic/zero123-xl"]) == 0
    assert "recipes   image-to-3d" in capsys.readouterr().out
