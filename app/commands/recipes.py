"""sds3d recipes: published methods as runs, where each value is from, and what a run costs."""

import json
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument

from ..shared_options import AsJson

if TYPE_CHECKING:
    from sds3d.config.recipes import Recipe

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Published methods as runs: list, show.")
OPTIONS = {"reference_image.path": "--image"}  # of `sds3d generate`, for what recipes need


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes with their sources and what a run costs."""
    from sds3d.config import read_recipe, recipe_names

    rows = [about(name, read_recipe(name)) for name in recipe_names()]
    if as_json:
        print(json.dumps({"recipes": rows}, indent=2))
        return
    for row in rows:
        print(f"{row['name']:16}{row['title']}")
        print(f"{'':16}{cost_text(row)}; from {', '.join(row['main_sources'])}")
    print("To run one: sds3d generate PROMPT --recipe NAME; with another model: --prior FOLDER.")


@app.command()
def show(name: Annotated[str, Argument(metavar="NAME", help="of a recipe, see list")], as_json: AsJson = False) -> None:
    """Show all values of a recipe and where each is from."""
    from sds3d.config import read_recipe

    recipe = read_recipe(name)
    if as_json:
        print(json.dumps({**about(name, recipe), **recipe.model_dump(mode="json")}, indent=2))
        return
    row = about(name, recipe)
    print(f"{name}: {recipe.title}\n{cost_text(row)}\n{row['command']}\n\nsources")
    for key, source in recipe.sources.items():
        print(f"  {key:10} {source}")
    stage = ""
    for where, key, value in recipe.rows():
        if where != stage:
            stage = where
            print(f"\n{where}")
        reason = f"; {value.why}" if value.why else ""
        print(f"  {f'{key} = {json.dumps(value.value)}':50}  # {value.origin}{reason}")
    print("\nleft out")
    for text in recipe.left_out:
        print(f"  - {text}")


def about(name: str, recipe: "Recipe") -> dict[str, Any]:
    """What `list` tells of a recipe."""
    needs = [word for key, value in recipe.needs.items() for word in (OPTIONS[key], value)]
    model = recipe.run["prior.model"].value
    return {
        "name": name,
        "title": recipe.title,
        "prior": model,
        "stages": [
            {"name": stage.name, "steps": stage.steps.value, "forwards": count}
            for stage, count in zip(recipe.stages, recipe.forwards, strict=True)
        ],
        "forwards": sum(recipe.forwards),
        "main_sources": [recipe.sources[key] for key in dict.fromkeys(stage.steps.source for stage in recipe.stages)],
        "command": shlex.join(["sds3d", "generate", "a red mug", "--recipe", name, *needs]),
    }


def cost_text(row: dict[str, Any]) -> str:
    """Steps of each stage, and how many images the prior evaluates in all."""
    steps = ", ".join(f"{stage['name']} {stage['steps']:,}" for stage in row["stages"])
    return f"{steps} steps; {row['forwards']:,} forwards of {row['prior']}"
