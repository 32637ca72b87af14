"""Benchmark suites: fixed prompts, run with each guidance, scene and seed, and scored."""

from collections.abc import Iterable
from pathlib import Path

from sds3d.config import RunConfig
from sds3d.errors import ConfigError
from sds3d.evaluation.classifier import Classifier
from sds3d.evaluation.classifier_scores import captions_for
from sds3d.evaluation.scores import Clip, Evaluated, evaluate_run
from sds3d.sweeps.run_set import RunSet

# The second half of each suite was kept out of the prior's training (captions.Description.held_out). `seen`, the first
# half of the standard suite, is for choosing defaults, which the other half then tests.
SUITES: dict[str, tuple[str, ...]] = {
    "quick": (
        *("a red mug", "a blue car", "a red cone on a blue cube"),
        *("a green chair", "a blue duck", "two yellow apples"),
    ),
    "standard": (
        *("a red mug", "a brown chair", "a yellow duck", "a blue car", "a white house with a red roof"),
        *("a green cactus", "a gray robot", "a striped blue and white teapot", "a checkered blue and yellow gift"),
        *("a red cone on a blue cube", "a small red sphere beside a big blue cube", "two green apples"),
        *("a green chair", "a purple mug", "a blue duck", "a pink train", "a cyan house with a red roof"),
        *("an orange bus", "a gray cat", "a striped red fish", "a purple glossy castle"),
        *("a purple mug on a yellow table", "a small green car beside a big yellow tree", "two yellow apples"),
    ),
}
SUITES["seen"] = SUITES["standard"][:12]
# limit for a run of the default preset on two cores, by the scene that it ends with
SECONDS = {"gaussians": 90.0, "mesh": 90.0, "nerf": 180.0}


class Suite:
    """Each config in <folder>/<number of its prompt>-<guidance>-<scene>-<seed>/."""

    def __init__(self, configs: list[RunConfig], folder: Path) -> None:
        """ConfigError if a folder of that name holds a run with another config; nothing is written yet."""
        prompts = list(dict.fromkeys(config.prompt for config in configs))
        named = {folder / run_folder(prompts.index(config.prompt), config): config for config in configs}
        assert len(named) == len(configs), "two configs have one folder"
        self.runs = RunSet(named)

    def evaluate(self, classifier: Classifier, clip: Clip | None = None) -> Iterable[Evaluated]:
        """The scores of every finished run, one at a time."""
        captions = captions_for(config.prompt for config in self.runs.configs.values())
        for path, config in self.runs.configs.items():
            yield evaluate_run(path, classifier, captions, clip, SECONDS.get(config.final.scene.name))


def run_folder(number: int, config: RunConfig) -> str:
    """Never the prompt, which could be any path."""
    return f"{number:02d}-{config.guidance.name}-{config.final.scene.name}-{config.seed}"


def suite_prompts(name: str) -> tuple[str, ...]:
    """The prompts of a suite; ConfigError for an unknown name."""
    if name not in SUITES:
        raise ConfigError(f"no suite is called {name!r}", hint=f"known: {', '.join(SUITES)}")
    return SUITES[name]
