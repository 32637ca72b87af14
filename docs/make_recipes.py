"""Updates the table of docs/recipes.md from assets/recipes/: `python docs/make_recipes.py`."""

from pathlib import Path

from sds3d.config import read_recipe, recipe_names

PAGE = Path(__file__).with_name("recipes.md")
START, END = "<!-- recipes: generated -->\n", "<!-- end -->"


def table() -> str:
    """One row a recipe: its title, the steps of its stages, what they ask of the prior, and the main sources."""
    rows = ["| `--recipe` | method | steps | forwards | prior | from |", "| --- | --- | --- | --- | --- | --- |"]
    for name in recipe_names():
        recipe = read_recipe(name)
        steps = ", ".join(f"{stage.name} {stage.steps.value:,}" for stage in recipe.stages)
        sources = ", ".join(dict.fromkeys(recipe.sources[stage.steps.source] for stage in recipe.stages))
        model = recipe.run["prior.model"].value
        rows.append(f"| `{name}` | {recipe.title} | {steps} | {sum(recipe.forwards):,} | {model} | {sources} |")
    return "\n".join(rows) + "\n"


def page() -> str:
    """The whole page, with its table made anew."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return before + START + table() + rest[rest.index(END) :]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
