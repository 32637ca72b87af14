"""Every two options of `sds3d generate` are both honoured or refused: none silently ignores another. So are those of
the other commands where one does nothing without another."""

import contextlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sds3d.scenes import GaussiansConfig
from sds3d_app.cli import invoke

UNTIL = 4


@dataclass(frozen=True)
class Result:
    """What one command did: it was begun in the empty `folder`."""

    code: int
    out: str
    err: str
    folder: Path

    def made(self) -> list[Path]:
        """All finished runs."""
        return [path.parent for path in self.folder.rglob("report.json")]

    def chose_at_until(self) -> bool:
        """Whether the best seed was chosen at the step asked for, or would be."""
        rankings = [json.loads(path.read_text()) for path in self.folder.rglob("ranking.json")]
        return f"to step {UNTIL}" in self.err or [ranking["until"] for ranking in rankings] == [UNTIL]

    def ends_in_json(self) -> bool:
        """All of stdout is one object, or each of its lines is."""
        with contextlib.suppress(json.JSONDecodeError):
            return isinstance(json.loads(self.out), dict)
        return all(isinstance(json.loads(line), dict) for line in self.out.splitlines())

    def refuses_word(self) -> bool:
        return self.code == 2 and "mug" in self.err and not list(self.folder.iterdir())


# Each option, and whether a result shows that it was honoured.
OPTIONS: dict[str, tuple[list[str], Callable[[Result], bool]]] = {
    "--print-config": (["--print-config"], lambda r: "guidance_scale" in r.out and not r.made()),
    "--dry-run": (["--dry-run"], lambda r: not list(r.folder.iterdir())),
    "--strict": (["--strict"], Result.refuses_word),
    "--quiet": (["--quiet"], lambda r: len(r.out.splitlines()) == 1 and r.err.startswith("warning: ")),
    "--json": (["--json"], Result.ends_in_json),
    "--out": (["--out", "there"], lambda r: "there" in r.out + r.err),
    "--best-of": (["--best-of", "2"], lambda r: "seed-1" in r.out + r.err or "2 seeds" in r.err),
    "--until": (["--best-of", "2", "--until", str(UNTIL)], Result.chose_at_until),
}
REFUSED = {
    *(("--print-config", other) for other in ("--dry-run", "--strict", "--quiet", "--out", "--best-of", "--until")),
    ("--quiet", "--json"),
}


@pytest.fixture
def generate(small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., Result]:
    """Runs `sds3d generate` in an empty folder, on a prompt with a word that its prior does not know."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(GaussiansConfig, "artifacts", ("sheet",))

    def run(*options: str) -> Result:
        command = [
            "generate",
            "a red mug",
            "--config",
            str(small_file),
            "--steps",
            str(UNTIL + 1),
            "scene.count=50",
            "cameras.views=1",
        ]
        code = invoke([*command, *dict.fromkeys(options)])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err, folder)

    return run


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(OPTIONS, 2)))
def test_no_option_silently_ignores_another(first: str, second: str, generate) -> None:
    (words, honoured), (other_words, other_honoured) = OPTIONS[first], OPTIONS[second]
    result = generate(*words, *(other_words if words[0] != other_words[0] else other_words[2:]))
    if (first, second) in REFUSED:
        assert result.code == 2
        assert first in result.err
        assert second in result.err or "--best-of" in result.err
        assert not list(result.folder.iterdir())
    elif "--strict" in (first, second):  # it stops everything that would come after it
        assert Result.refuses_word(result)
    else:
        assert result.code == 0, result.err
        assert honoured(result), result
        assert other_honoured(result), result


@pytest.mark.parametrize(
    ("arguments", "both"),
    [
        (["generate", "a mug", "--until", "5"], ["--until", "--best-of"]),
        (["generate", "a mug", "--steps", "5", "--set", "steps=6"], ["steps", "steps=6"]),
        (["generate", "a mug", "prompt=a cup"], ["prompt", "prompt=a cup"]),
        (["generate", "a mug", "--prior", "some/model", "prior.model=another"], ["prior.model"]),
        (["generate", "a mug", "steps=5", "--set", "steps=6"], ["steps", "5", "6"]),
        (["compare", "a mug", "--set", "guidance=sds"], ["guidance"]),
        (["compare", "a mug", "--set", "seed=3"], ["seed"]),
        (["evaluate", "somewhere", "--seeds", "3"], ["--seeds", "--suite"]),
        (["evaluate", "somewhere", "--guidance", "csd"], ["--guidance", "--suite"]),
        (["evaluate", "somewhere", "--set", "steps=3"], ["--set", "--suite"]),
        (["evaluate", "--suite", "quick", "--set", "guidance=csd"], ["guidance"]),
        (["evaluate", "--suite", "quick", "--set", "prompt=a mug"], ["prompt"]),
        (["resume", "somewhere", "--quiet", "--json"], ["--quiet", "--json"]),
        (["doctor", "--device", "cpu"], ["--device", "--prior"]),
    ],
)
def test_what_would_be_ignored_is_refused(
    arguments: list[str], both: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(name in err for name in both), err
    assert not list(tmp_path.iterdir())
