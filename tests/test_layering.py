"""The dependency rule of CONTRIBUTING.md, read from the source, nothing imported: arrows between folders point down."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "sds3d").rglob("*.py"))
APP = sorted((ROOT / "app").rglob("*.py"))

# Bottom to top, folders of sds3d/ (and flat modules): each imports from the rows below its own, and from itself.
LAYERS = [
    {"types", "errors", "options", "atomic", "text_files", "picture_files", "client"},
    {"ops"},
    {"cameras", "prompts", "reference_image", "mesh_files", "scenes", "priors"},
    {"guidance"},
    {"metrics"},
    {"export"},
    {"config"},
    {"run"},
    {"training"},
    {"jobs", "sweeps"},
    {"evaluation"},
    {"__init__"},
    {"app"},
]
SIDEWAYS = {  # the few arrows within a row
    ("types", "errors"),
    ("atomic", "errors"),
    ("text_files", "errors"),
    ("picture_files", "errors"),
    ("reference_image", "cameras"),
    ("scenes", "mesh_files"),
    ("scenes", "cameras"),  # rays through pixels
    ("priors", "cameras"),  # the embedded prior's training data is rendered
    ("priors", "reference_image"),  # some go by one
    ("prompts", "priors.base"),
    ("jobs", "sweeps.pages"),  # its gallery is one of the pages
}
# The many arrows that a row would allow, but a folder does not get: what it may see of the folder below it.
ONLY = {("guidance", "priors"): {"priors.base"}, ("guidance", "scenes"): set(), ("run", "training"): set()}

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
    inner = imported.split(".", 1)[-1]
    if (here, there) in ONLY and not any(inner == a or inner.startswith(a + ".") for a in ONLY[here, there]):
        return f"{here} may not import {inner}"
    if rank(there) < rank(here) or any(here == a and (inner == b or inner.startswith(b + ".")) for a, b in SIDEWAYS):
        return None
    return f"{here} may not import {inner}"


def arrows(paths: list[Path]) -> Iterator[tuple[Path, int, str, str]]:
    """(file, line, importing module, imported module) of every import in the files."""
    for path in paths:
        module = module_name(path)
        for line, imported in imports(ast.parse(path.read_text()), module, path.name == "__init__.py"):
            yield path, line, module, imported


def test_imports_point_down() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {why} ({imported})"
        for path, line, module, imported in arrows(LIBRARY + APP)
        if (why := complaint(module, imported))
    ]
    assert not found, "\n".join(found)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions count too: they only hide a circle."""
    below: dict[str, set[str]] = {}
    for _, _, module, imported in arrows(LIBRARY):
        if imported.startswith("sds3d.") and imported != module and is_module(imported):
            below.setdefault(module, set()).add(imported)
    packages = {module_name(path) for path in LIBRARY if path.name == "__init__.py"}
    while True:  # take away what imports nothing that is left, until nothing goes or nothing is left
        leaves = [m for m in below if not below[m] & below.keys()]
        if not leaves:
            break
        for module in leaves:
            del below[module]
    left = {m: sorted(names & below.keys()) for m, names in below.items() if m not in packages}
    assert not left, f"in a circle, or above one: {left}"


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("sds3d.scenes.gaussians", "sds3d.priors.base"),
        ("sds3d.priors.analytic", "sds3d.scenes.base"),
        ("sds3d.guidance.sds", "sds3d.priors.analytic"),
        ("sds3d.guidance.base", "sds3d.scenes.base"),
        ("sds3d.priors.base", "sds3d.guidance.base"),
        ("sds3d.ops.project_gaussians", "sds3d.cameras"),
        ("sds3d.run.events", "sds3d.training.session"),
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


FORBIDDEN = {"print", "exit", "sys.exit"}


def nodes(path: Path, kind: type) -> list:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kind)]


def test_the_library_neither_prints_nor_exits() -> None:
    calls = [(path, call.lineno, ast.unparse(call.func)) for path in LIBRARY for call in nodes(path, ast.Call)]
    bad = [(str(path.relative_to(ROOT)), line, name) for path, line, name in calls if name in FORBIDDEN]
    assert not bad, bad


def test_shape_annotations_stay_live() -> None:
    bad = [path for path in LIBRARY for node in nodes(path, ast.ImportFrom) if node.module == "__future__"]
    assert not bad, f"shapes would be strings at run time: {bad}"


@pytest.mark.parametrize("name", ["utils.py", "common.py", "helpers.py"])
def test_no_drawer_for_everything(name: str) -> None:
    assert not [p for p in LIBRARY + APP if p.name == name]
