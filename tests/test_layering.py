"""The dependency rule and the size budgets of CONTRIBUTING.md, read from the source, nothing imported."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "sds3d").rglob("*.py"))
APP = sorted((ROOT / "app").rglob("*.py"))

# Bottom to top; a part imports from the rows below its own, and from its own part.
LAYERS = [
    {"types", "errors", "options"},
    {"ops", "events", "files", "validation"},
    {"losses"},
    {"cameras", "pictures", "prompts", "scenes", "priors", "guidance"},
    {"export", "metrics", "optim"},
    {"config", "presets"},
    {"janus", "changing", "health"},
    {"trainer", "checkpoint", "results", "report", "event_log"},
    {"planning", "run_folder", "previews"},
    {"recovery"},
    {"session"},
    {"many", "jobs", "exporting"},
    {"compare", "evaluation"},
    {"best_of"},
    {"__init__"},
    {"app"},
]
# The few arrows within a row, and the many that a row would allow but a part does not get.
SIDEWAYS = {
    ("guidance", "priors.base"),
    ("prompts", "priors.base"),
    ("priors", "cameras"),  # the embedded prior's training data is rendered
    ("priors", "pictures"),  # some go by one
    ("pictures", "cameras"),
    ("presets", "config"),
    ("config", "presets"),
    ("export", "metrics"),
    ("metrics", "export"),
    ("trainer", "checkpoint"),
}
ONLY = {"events": {"types"}}

THIRD_PARTY = {  # package: the parts that may import it
    "diffusers": {"priors"},
    "transformers": {"priors", "evaluation"},  # the latter for CLIP
    "peft": {"priors"},
    "huggingface_hub": {"priors"},
    "gradio": {"app"},
    "typer": {"app"},
    "click": {"app"},
    "rich": {"app"},
    "ray": {"app"},
}


def rank(part: str) -> int:
    rows = [i for i, row in enumerate(LAYERS) if part in row]
    assert rows, f"{part} has no row in LAYERS: give it one"
    return rows[0]


def part_of(module: str) -> str:
    """The part a dotted module belongs to: sds3d.guidance.sds -> guidance, sds3d_app.cli -> app."""
    names = module.split(".")
    if names[0] == "sds3d_app":
        return "app"
    return names[1] if len(names) > 1 else "__init__"


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts[0] = {"app": "sds3d_app"}.get(parts[0], parts[0])
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists() or path.is_dir()


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                stem = module.split(".")
                stem = stem[: len(stem) - node.level + is_package]
                base = ".".join([*stem, *base.split(".")]) if base else ".".join(stem)
            for alias in node.names:  # `from sds3d import config` names a module, `from sds3d import Session` does not
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if base.split(".")[0] == "sds3d" and is_module(inner) else base


def complaint(importer: str, imported: str) -> str | None:
    """Why `importer` may not import `imported`; None where it may."""
    top = imported.split(".", maxsplit=1)[0]
    here = part_of(importer)
    if top in THIRD_PARTY:
        return None if here in THIRD_PARTY[top] else f"only {', '.join(sorted(THIRD_PARTY[top]))} may import {top}"
    if top not in {"sds3d", "sds3d_app"}:
        return None
    there = part_of(imported)
    if here == there:
        return None
    if here in ONLY and there not in ONLY[here]:
        return f"{here} imports only {', '.join(sorted(ONLY[here]))}"
    inner = imported.split(".", 1)[-1]
    if rank(there) < rank(here) or any(here == a and (inner == b or inner.startswith(b + ".")) for a, b in SIDEWAYS):
        return None
    return f"{here} may not import {inner}"


@pytest.mark.parametrize("path", LIBRARY + APP, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    module, tree = module_name(path), ast.parse(path.read_text())
    found = [
        f"{path.relative_to(ROOT)}:{line}: {why} ({imported})"
        for line, imported in imports(tree, module, path.name == "__init__.py")
        if (why := complaint(module, imported))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("sds3d.scenes.gaussians", "sds3d.priors.base"),
        ("sds3d.priors.analytic", "sds3d.scenes.base"),
        ("sds3d.guidance.sds", "sds3d.priors.analytic"),
        ("sds3d.guidance.base", "sds3d.scenes.base"),
        ("sds3d.priors.base", "sds3d.guidance.base"),
        ("sds3d.ops.project_gaussians", "sds3d.cameras"),
        ("sds3d.training.trainer", "sds3d.training.session"),
        ("sds3d.run.events", "sds3d.config.run_config"),
        ("sds3d.training.session", "sds3d_app.cli"),
        ("sds3d.training.trainer", "rich.progress"),
        ("sds3d.training.session", "diffusers"),
    ],
)
def test_an_upward_or_sideways_arrow_is_noticed(importer: str, imported: str) -> None:
    assert complaint(importer, imported)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("sds3d.guidance.sds", "sds3d.priors.base"),
        ("sds3d.training.session", "sds3d.training.trainer"),
        ("sds3d.training.trainer", "sds3d.types"),
        ("sds3d_app.cli", "sds3d"),
        ("sds3d.priors.embedded.prior", "diffusers"),
    ],
)
def test_a_downward_arrow_is_allowed(importer: str, imported: str) -> None:
    assert complaint(importer, imported) is None


def test_relative_and_nested_imports_are_seen() -> None:
    tree = ast.parse(
        "def f():\n    from ..scenes import base\n    from . import base\n    from sds3d import RunConfig\n"
    )
    found = [name for _, name in imports(tree, "sds3d.priors.analytic", False)]
    assert found == ["sds3d.scenes.base", "sds3d.priors.base", "sds3d"]


def nodes(path: Path, kind: type) -> list:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kind)]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_library_neither_prints_nor_exits(path: Path) -> None:
    calls = {ast.unparse(call.func): call.lineno for call in nodes(path, ast.Call)}
    bad = {name: line for name, line in calls.items() if name in {"print", "exit", "sys.exit"}}
    assert not bad, bad


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_shape_annotations_stay_live(path: Path) -> None:
    assert "__future__" not in {node.module for node in nodes(path, ast.ImportFrom)}, (
        "they would be strings at run time"
    )


CATALOGUES = {ROOT / "sds3d" / "priors" / "embedded" / "catalogue.py"}  # one entry after the other, nothing to follow


@pytest.mark.parametrize("path", LIBRARY + APP, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    budget = 120 if path.parent == ROOT / "sds3d" / "guidance" else 300
    if path not in CATALOGUES:
        assert len(path.read_text().splitlines()) <= budget
    lengths = {function.name: code_lines(function) for function in nodes(path, ast.FunctionDef)}
    assert not {name: length for name, length in lengths.items() if length > 50}


def code_lines(function: ast.FunctionDef) -> int:
    """Lines from the first statement after the docstring to the end."""
    first = function.body[1 if ast.get_docstring(function) and len(function.body) > 1 else 0]
    return (function.end_lineno or 0) - first.lineno + 1


@pytest.mark.parametrize("name", ["utils.py", "common.py", "helpers.py"])
def test_no_drawer_for_everything(name: str) -> None:
    assert not [p for p in LIBRARY + APP if p.name == name]
