"""Pages that are written by a program are what the program writes."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_guidance_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_guidance", ROOT / "docs" / "make_guidance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == (ROOT / "docs" / "guidance.md").read_text(encoding="utf-8"), "run docs/make_guidance.py"
