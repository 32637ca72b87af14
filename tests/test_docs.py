"""What the pages print is what the programs write, and what they show works."""

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from typer.main import get_command

from sds3d.guidance import GUIDANCE
from sds3d.training.trainer import Trainer
from sds3d_app.arguments import take_switches
from sds3d_app.cli import app, invoke

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted((ROOT / "docs").glob("*.md"))
CODE = re.compile(r"^```\w*\n(.+?)^```", flags=re.DOTALL | re.MULTILINE)
COMMANDS = sorted(
    {
        line.split("  #")[0].strip()
        for page in PAGES
        for block in CODE.findall(page.read_text())
        for line in block.splitlines()
        if line.startswith("sds3d ")
    }
)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_guidance_page_is_up_to_date() -> None:
    page = load(ROOT / "docs" / "make_guidance.py").page()
    assert page == (ROOT / "docs" / "guidance.md").read_text(encoding="utf-8"), "run docs/make_guidance.py"


def test_the_table_of_recipes_is_up_to_date() -> None:
    module = load(ROOT / "docs" / "make_recipes.py")
    assert module.page() == module.PAGE.read_text(encoding="utf-8"), "run docs/make_recipes.py"


def test_the_picture_of_the_rooms_is_up_to_date() -> None:
    module = load(ROOT / "docs" / "make_architecture.py")
    assert module.draw() == module.PICTURE.read_text(encoding="utf-8"), "run docs/make_architecture.py"


@pytest.fixture(scope="module")
def troubleshooting() -> ModuleType:
    return load(ROOT / "docs" / "make_troubleshooting.py")


def test_every_message_is_found_by_its_words_with_what_to_do(troubleshooting: ModuleType) -> None:
    text = troubleshooting.PAGE.read_text(encoding="utf-8")
    messages = troubleshooting.messages()
    missing = [message.text for message in messages if message.text.replace("<", "&lt;") not in text]
    assert missing == [], "run docs/make_troubleshooting.py"
    unexplained = [f"{message.file}: {message.text}" for message in messages if not message.advice]
    assert unexplained == [], "give them a hint in the code, or add them to ADVICE in docs/make_troubleshooting.py"
    unused = [words for words in troubleshooting.ADVICE if not any(words in message.text for message in messages)]
    assert unused == []
    assert troubleshooting.page() == text, "run docs/make_troubleshooting.py"
    assert len(messages) > 200


def test_what_the_hand_written_part_quotes_is_said_somewhere(troubleshooting: ModuleType) -> None:
    by_hand = troubleshooting.PAGE.read_text(encoding="utf-8").partition(troubleshooting.BEGIN)[0]
    known = [message.text for message in troubleshooting.messages()]
    source = "".join(path.read_text() for path in (ROOT / "app" / "commands").glob("*.py"))
    quoted = re.findall(r"^> (.+)$", by_hand, re.MULTILINE)
    assert len(quoted) > 20
    assert [text for text in quoted if text not in known and text not in source] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "nowhere.glb"],
        ["resume", "nowhere"],
        ["generate", "a red mug", "--preset", "drat"],
        ["generate", "a red mug", "--set", "steps=1", "--set", "steps=2"],
        ["batch", "nowhere.csv"],
        ["texture", "nowhere.glb", "a red mug"],
        ["generate", "a red mug", "--prior", "stabilityai/nothing"],
        ["ui", "--host", "0.0.0.0"],
    ],
)
def test_messages_that_people_meet_are_on_the_page(
    arguments: list[str], troubleshooting: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert invoke(arguments) == 2
    said = capsys.readouterr().err.removeprefix("error: ").strip()
    patterns = [".+".join(map(re.escape, message.text.split("…"))) for message in troubleshooting.messages()]
    assert [pattern for pattern in patterns if re.match(pattern.removeprefix(".+"), said) or re.match(pattern, said)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_source_files_that_are_named_exist(page: Path) -> None:
    """A name with a folder is below the root, sds3d/ or tests/; one without is anywhere."""
    text = CODE.sub("", page.read_text())
    names = {name for name in re.findall(r"`([\w./]+\.(?:py|md|h|cu))`", text) if "foo" not in name}
    known = {path.name for folder in ("sds3d", "app", "tests", "docs") for path in (ROOT / folder).rglob("*.*")}
    missing = [
        name
        for name in names
        if not any((ROOT / top / name).exists() for top in ("", "sds3d", "tests"))
        and ("/" in name or name not in known)
    ]
    assert missing == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_shown_is_one(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It parses, and options of a run are a config, unless they name what is not here (FOLDER_OR_ID, a run's file)."""
    words = take_switches(shlex.split(command)[1:])
    has_config = not {"--best-of", "--print-config", "--config"} & set(words) and not any(map(str.isupper, words))
    if words[0] == "generate" and has_config:
        assert invoke([*words, "--print-config"]) == 0, capsys.readouterr().err
        return
    group = get_command(app)
    context = group.make_context("sds3d", words)
    while words:
        name, command_found, words = context.command.resolve_command(context, words)
        context = command_found.make_context(name, words, parent=context)
        words = [] if not hasattr(context.command, "resolve_command") else words


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.+) FORCE$", makefile, flags=re.MULTILINE)
    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^make ([a-z-]+) +\S", listed, flags=re.MULTILINE) == phony.split()


def test_the_hooks_are_what_make_lint_runs() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.+\n)+)", makefile, flags=re.MULTILINE)
    wanted = [line.strip().replace("$(BIN)", ".venv/bin").removesuffix(" .").removesuffix(" $(KERNELS)") for line in
              recipe.splitlines()]  # fmt: skip
    (hooks,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for hook in hooks["hooks"]] == wanted


@pytest.mark.slow
def test_the_python_of_the_readme_makes_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.+?)^```", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "outputs" / "from-python" / "sheet.png").is_file()


def test_the_guidance_of_the_contributors_guide_works_as_printed(
    small_config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (code,) = re.findall(r"```python\n(.+?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    path = tmp_path / "plain.py"
    path.write_text(code)
    monkeypatch.setitem(GUIDANCE, "plain", load(path).Plain)
    config = small_config(guidance="plain", **{"guidance.strength": 2.0})
    assert config.to_dict()["guidance"] == {"name": "plain", "strength": 2.0, "weighting": "sigma_squared"}
    generator = torch.Generator().manual_seed(0)
    scene = config.scene.build(generator)
    before = scene.raw_colors.detach().clone()
    trainer = Trainer(config, scene, config.prior.build("cpu"), generator, torch.device("cpu"))
    list(trainer.run())
    assert trainer.forwards() == config.views_until(config.steps)
    assert (scene.raw_colors[: len(before)].detach() - before[: len(scene.raw_colors)]).abs().max() > 0.1
