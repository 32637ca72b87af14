"""Lists of jobs in four formats, and everything that can be wrong with them."""

from pathlib import Path

import pytest

from sds3d.errors import ConfigError
from sds3d.jobs.job_list import read_job_list

PROMPTS = ["a red ball", "a blue ball"]
WRITTEN = {
    "list.txt": "# balls\n\na red ball\n  a blue ball  \n",
    "list.csv": "prompt,seed,guidance.guidance_scale\na red ball,3,7.5\na blue ball,,\n",
    "list.jsonl": '{"prompt": "a red ball", "seed": 3}\n"a blue ball"\n',
    "list.yaml": "- a red ball\n- prompt: a blue ball\n  guidance: csd\n",
}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", WRITTEN)
def test_every_format_gives_its_prompts_in_order(name: str, tmp_path: Path) -> None:
    configs = read_job_list(write(tmp_path, name, WRITTEN[name]), overrides={"prior": "analytic"})
    assert [config.prompt for config in configs] == PROMPTS
    assert all(config.prior.name == "analytic" for config in configs)
    if name == "list.csv":
        assert (configs[0].seed, configs[0].guidance.guidance_scale) == (3, 7.5)
        assert configs[1].seed == 0
    if name == "list.yaml":
        assert [config.guidance.name for config in configs] == ["sds", "csd"]


def test_everything_is_multiplied_out_and_each_config_comes_once(tmp_path: Path) -> None:
    text = '"a red ball"\n{"prompt": "a blue ball", "vary": {"seed": [7]}}\n"a red ball"\n'
    path = write(tmp_path, "list.jsonl", text)
    configs = read_job_list(path, overrides={"steps": "50"}, vary={"seed": ["0", "1"], "guidance": ["sds", "csd"]})
    assert [(c.prompt, c.seed, c.guidance.name) for c in configs] == [
        *(("a red ball", seed, guidance) for seed in (0, 1) for guidance in ("sds", "csd")),
        *(("a blue ball", 7, guidance) for guidance in ("sds", "csd")),
    ]
    assert {config.steps for config in configs} == {50}


def test_what_the_item_says_goes_before_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, "list.jsonl", '{"prompt": "a red ball", "steps": 9}')
    base = write(tmp_path, "base.json", '{"steps": 8, "seed": 5}')
    (config,) = read_job_list(path, "draft", base, {"steps": 7})
    assert (config.steps, config.seed, config.preview_every) == (9, 5, 50)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("list.txt", "# nothing\n", "holds no prompt"),
        ("list.md", "a red ball", "known: .txt"),
        ("list.csv", "name\na red ball\n", "line 2: expected a prompt"),
        ("list.csv", "prompt,seed\na red ball,1,2\n", "line 2: more cells than columns"),
        ("list.csv", 'prompt\n"a red ball\n', "not valid CSV"),
        ("list.csv", "prompt,seed\na red ball,many\n", "line 2: seed"),
        ("list.jsonl", '"a red ball"\n{"prompt": ', "line 2: not valid JSON"),
        ("list.jsonl", "[1]", "line 1: expected a prompt"),
        ("list.jsonl", '{"prompt": "a red ball", "colour": 1}', "line 1: colour"),
        ("list.jsonl", '{"prompt": "a red ball", "vary": {"seed": []}}', "line 1: vary must be"),
        ("list.jsonl", '{"prompt": "a red ball", "vary": 3}', "line 1: vary must be"),
        ("list.yaml", "prompt: a red ball", "holds no list"),
        ("list.yaml", "- [", "not valid YAML"),
        ("list.yaml", "- !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("list.txt", "a red ball\n" + "x" * 5000, "line 2: prompt"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(name: str, text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_job_list(write(tmp_path, name, text))
    assert said in str(caught.value)
    assert name in str(caught.value)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_job_list(tmp_path / "list.txt")
    with pytest.raises(ConfigError, match="No such file"):
        read_job_list(tmp_path / "none.txt")
