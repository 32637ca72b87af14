"""Lists of jobs in four formats, and everything that can be wrong with them."""

from pathlib import Path

import pytest

from sds3d.config import load_config
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
        ("list.txt", "a red ball\na blue dog\n", "line 2: the embedded prior does not know: dog"),
        ("list.md", "a red ball", "known: .txt"),
        ("list.csv", "name\na red ball\n", "line 2: there is no prompt"),
        ("list.csv", "prompt,seed\na red ball,1,2\n", "line 2: more cells than columns"),
        ("list.csv", "prompt,seed,Seed\na red ball,1,2\n", "line 1: two columns are named seed"),
        ("list.csv", "prompt;seed\na red ball;x;2\n", "line 2: more cells than columns"),
        ("list.csv", "prompt,seed\n,7\n", "line 2: there is no prompt"),
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


SHEET = "Prompt{0}Seed{0}Guidance.Guidance Scale{0}\na café mug{0}3{0}7{1}5{0}\na blue ball{0}{0}{0}\n{0}{0}{0}\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("delimiter", "point"), [(",", "."), (";", ","), ("\t", "."), ("|", ".")])
def test_tables_as_spreadsheets_write_them(delimiter: str, point: str, end: str, encoding: str, tmp_path: Path) -> None:
    text = SHEET.format(delimiter, point).replace("\n", end)
    for name in ("list.csv", "list.tsv", "LIST.CSV"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        configs = read_job_list(tmp_path / name)
        assert [(config.prompt, config.seed) for config in configs] == [("a café mug", 3), ("a blue ball", 0)]
        assert configs[0].guidance.guidance_scale == 7.5


def test_a_table_that_says_its_delimiter_or_has_it_in_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, "list.csv", 'sep=;\nseed;PROMPT\n1;"a red, ripe; apple"\n')
    assert [config.prompt for config in read_job_list(path)] == ["a red, ripe; apple"]
    path = write(tmp_path, "list.csv", 'negative prompt,prompt\n" ",a red ball\n,"2,5 balls"\n')
    assert [config.prompt for config in read_job_list(path)] == ["a red ball", "2,5 balls"]


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85"])
def test_only_a_newline_ends_a_line(odd: str, tmp_path: Path) -> None:
    text = f'{{"prompt": "a red ball", "seed": 3}}\n{{"prompt": "a blue{odd}ball"}}\n'
    configs = read_job_list(write(tmp_path, "list.jsonl", text))
    assert [config.prompt for config in configs] == ["a red ball", "a blue ball"]
    text = f"prompt,negative_prompt\na red ball,blue{odd}sky\n"
    assert [config.negative_prompt for config in read_job_list(write(tmp_path, "list.csv", text))] == ["blue sky"]
    (config,) = read_job_list(write(tmp_path, "list.txt", f"a red{odd}ball\n"))
    assert config.prompt == "a red ball"


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        ("a red mug # first one", "a red mug"),
        ("a red mug\t#first", "a red mug"),
        ("a ball with the number #1", "a ball with the number"),
        ("a C# ball", "a C# ball"),
    ],
)
def test_a_comment_begins_at_the_start_or_after_a_space(line: str, prompt: str, tmp_path: Path) -> None:
    path = write(tmp_path, "list.txt", f"  # all\n{line}\n")
    assert [config.prompt for config in read_job_list(path, overrides={"prior": "analytic"})] == [prompt]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a red ball\na caf\xe9 mug\n", "is not UTF-8 text: line 2 has the byte 0xe9"),
        ("a кружка\n".encode("cp1251"), "is not UTF-8 text: line 1"),
        ("赤いカップ\n".encode("shift-jis"), "is not UTF-8 text: line 1"),
        (b"\xff\xfe\x00", "is not UTF-16 text"),
        ("a red ball\n".encode("utf-16-le"), "zero bytes"),
    ],
)
def test_other_encodings_are_named_not_guessed(data: bytes, said: str, tmp_path: Path) -> None:
    for name in ("list.txt", "list.csv", "list.jsonl", "list.yaml"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError, match=f"{said}.*save it as UTF-8"):
            read_job_list(tmp_path / name)
    (tmp_path / "base.json").write_bytes(data)
    with pytest.raises(ConfigError, match=f"{said}.*save it as UTF-8"):
        load_config(tmp_path / "base.json", overrides={"prompt": "a red ball"})


@pytest.mark.parametrize("name", ["list.txt", "list.csv", "list.jsonl", "list.yaml", "base.json"])
def test_what_only_stands_for_a_list_or_config_is_named_as_that(name: str, tmp_path: Path) -> None:
    """The lines of a text file would be prompts."""
    path = write(tmp_path, name, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n")
    with pytest.raises(ConfigError, match="only stands for the file, which Git LFS has"):
        load_config(path) if name == "base.json" else read_job_list(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_configs_are_read_with_a_byte_order_mark(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "base.json").write_bytes('{\r\n"prompt": "a café", "seed": 5}'.encode(encoding))
    config = load_config(tmp_path / "base.json")
    assert (config.prompt, config.seed) == ("a café", 5)


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_job_list(tmp_path / "none.txt")
