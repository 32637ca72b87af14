"""Every global name that the code reads exists: to lint, the axes of jaxtyping's shapes look like missing names."""

import builtins
import dis
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [*sorted((ROOT / "sds3d").rglob("*.py")), *sorted((ROOT / "app").rglob("*.py"))]


def module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts[0] = {"app": "sds3d_app"}.get(parts[0], parts[0])
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def globals_read(code: CodeType) -> Iterator[tuple[str, int]]:
    """(name, line) of every global that the code and what is defined in it reads."""
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        line = instruction.starts_line if isinstance(instruction.starts_line, int) else line
        if instruction.opname == "LOAD_GLOBAL":
            yield instruction.argval, line
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from globals_read(constant)


def unknown(source: str, known: set[str]) -> list[tuple[str, int]]:
    found = globals_read(compile(source, "", "exec"))
    return [(name, line) for name, line in found if name not in known and not hasattr(builtins, name)]


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "__main__.py"], ids=module_of)
def test_every_name_exists(path: Path) -> None:
    module = importlib.import_module(module_of(path))
    assert unknown(path.read_text(), set(vars(module))) == []


def test_a_missing_name_is_found() -> None:
    assert unknown("def f():\n    return [nowhere for _ in range(3)]\n", set()) == [("nowhere", 2)]
