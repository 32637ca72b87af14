"""RunConfig: everything that decides a run. Files, command line, web page and checkpoints all come through here."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, InstanceOf, SerializeAsAny, ValidationError, model_validator

from sds3d.cameras import CamerasConfig
from sds3d.config import layers
from sds3d.config.explain import explain, nearest, short
from sds3d.config.files import Rename, beside, map_files
from sds3d.config.layers import DEFAULT, PARTS, YOU, Leaf, Tree
from sds3d.config.recipes import read_recipe
from sds3d.errors import CheckpointError, ConfigError
from sds3d.export.extract import ExportConfig
from sds3d.guidance import GUIDANCE, SDS, Guidance
from sds3d.guidance.noise import Fresh, Noise
from sds3d.guidance.timesteps import TIMESTEPS, Annealed, Timesteps
from sds3d.options import LocalFile, Options, Scheduled
from sds3d.priors import PRIORS, EmbeddedConfig, PriorConfig
from sds3d.prompts import ViewPrompting, check_prompt, check_text
from sds3d.reference_image import REFERENCE_WEIGHTS, ReferenceImageConfig
from sds3d.scenes import GaussiansConfig, SceneConfig
from sds3d.scenes.optimizer import OptimConfig
from sds3d.text_files import read_text

PRESETS: dict[str, dict[str, Any]] = {  # named starting points: what is not named keeps its default
    "draft": {"steps": 250, "preview_every": 50},
    "default": {},
    "fine": {"steps": 2000, "cameras": {"views": 8}, "preview_every": 250},
    # the embedded prior's default run, for any prior
    "mesh": {key: EmbeddedConfig.default_overrides[key] for key in ("steps", "stages")},
}
OWN_LOSSES = ("guidance", "guidance_params")  # losses of every scene: the injected gradient's, and the guidance's own
TEXTS = {"prompt", "negative_prompt"}  # overrides of these are never read as JSON
# What may change while a run is under way: nothing that the run has state of its own for.
LIVE = ("prompt", "negative_prompt", "guidance.guidance_scale")
MAX_FILE_BYTES = 1 << 20
SAVED = "the saved run"  # source of a value that a run began with, and that today's defaults would not give
BRING_DEFAULTS = ("prior", "scene", "guidance")  # parts with default_overrides; the later ones win
TAKE_OVERS = (("gaussians", "mesh"), ("nerf", "mesh"))  # kinds of scenes, besides one of the same kind
STAGED = ("scene", "guidance", "timesteps", "noise", "cameras", "view_prompting", "optim", "loss_weights")


def _check_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,2})?", name):
        raise ValueError("known: auto, cpu, cuda, cuda:N")
    return name


@dataclass(frozen=True)
class _Input:
    """What a RunConfig is made of: what was said, and the values where they are fixed already."""

    said: tuple[Tree, ...]
    fixed: Mapping[str, Any] | None = None


class Stage(Options):
    """Other options from some part of the run on; a scene of another kind takes over what the one before has made.

    {"begin_at": 0.45, "options": {"scene": "mesh", "guidance.guidance_scale": 10}}. What is not named is as in the
    run's own options; schedules and times run anew in each stage. In a checked config `options` has all values.
    """

    begin_at: Annotated[float, Field(gt=0, lt=1, description="part of the run from which on they count")]
    options: Annotated[Mapping[str, Any], Field(description="of the parts " + ", ".join(STAGED))]


class RunConfig(Options):
    """One run: every option with its value.

    However it is made, the same layers of defaults apply: the options' own, then what prior, scene and guidance bring
    for other parts (`default_overrides`), then what a person said. A prior's stages, and its steps with them, are
    brought only to those who name no scene and no stages. ConfigError names the first thing that is wrong.
    Configs with the same values are equal, whoever gave them. Pitfall: `model_copy` leaves `said` as it was; use
    `with_changes`.
    """

    prompt: Annotated[str, AfterValidator(check_prompt)]
    negative_prompt: Annotated[str, AfterValidator(check_text)] = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 600
    device: Annotated[str, AfterValidator(_check_device)] = "auto"
    scene: SerializeAsAny[InstanceOf[SceneConfig]] = GaussiansConfig()
    particles: Annotated[
        int, Field(ge=1, le=64, description="scenes optimized together, each in its share of the views")
    ] = 1
    prior: SerializeAsAny[InstanceOf[PriorConfig]] = EmbeddedConfig()
    guidance: SerializeAsAny[InstanceOf[Guidance]] = SDS()
    timesteps: SerializeAsAny[InstanceOf[Timesteps]] = Annealed()
    noise: SerializeAsAny[InstanceOf[Noise]] = Fresh()
    cameras: CamerasConfig = CamerasConfig()
    view_prompting: ViewPrompting = ViewPrompting()
    reference_image: Annotated[
        ReferenceImageConfig | None,
        Field(description="a picture of the object, which the scene has to match from its camera"),
    ] = None
    optim: OptimConfig = OptimConfig()
    loss_weights: Annotated[
        Mapping[str, Scheduled], Field(description="weight of each regularizer of the scene; 0 if not named")
    ] = {}
    stages: Annotated[tuple[Stage, ...], Field(description="other options from some part of the run on")] = ()
    export: ExportConfig = ExportConfig()
    preview_every: Annotated[int, Field(ge=0, description="steps between previews; 0: none")] = 100
    checkpoint_every: Annotated[int, Field(ge=1, description="steps between checkpoints; the newest two stay")] = 100
    milestone_every: Annotated[
        int, Field(ge=0, description="steps between checkpoints that stay, where the Janus meter looks too; 0: none")
    ] = 0

    _said: tuple[Tree, ...] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _from_layers(cls, data: Any, handler: Any) -> Any:
        if not isinstance(data, Mapping | _Input):
            return handler(data)
        source = data if isinstance(data, _Input) else _Input(layers.said_trees(YOU, data))
        try:
            found = layers.values(_share_image(_layered(source.said))) if source.fixed is None else source.fixed
            found = {key: _part(key, value) if key in PARTS else value for key, value in found.items()}
            config = handler(found)
        except ValidationError as error:
            raise explain(cls, found, error, "") from None
        config._said = source.said
        _refuse_combinations(config)
        config._fill_stages(source)
        _refuse_search(config)
        return config

    def _fill_stages(self, source: _Input) -> None:
        """Give each stage all of its values, each checked as a run of its own would be.

        In place, before anybody has the config: pydantic hands out no other object than the one that was called for.
        """
        whole, before = list[Stage](), self
        for number, stage in enumerate(self.stages):
            field = f"stages[{number}]"
            first = round(whole[-1].begin_at * self.steps) if whole else 0
            if round(stage.begin_at * self.steps) <= first:
                problem = f"{field}.begin_at = {stage.begin_at:g}: the stage before has no step"
                raise ConfigError(problem, "say more steps, or stages=[] for none", field)
            for key in stage.options:
                if key.split(".")[0] not in STAGED:
                    known = "what can: " + ", ".join(STAGED)
                    raise ConfigError(f"{field}: {short(key, quote=False)} cannot change on the way", known, field)
            try:
                said = _staged(source.said, layers.said_trees(f"stage {number + 2}", stage.options), self.scene)
                config = type(self).model_validate(_Input(said)) if source.fixed is None else self._of_stage(stage)
            except ConfigError as error:
                raise ConfigError(f"{field}: {error.args[0]}", error.hint, field) from None
            kinds = before.scene.name, config.scene.name
            if kinds[0] != kinds[1] and kinds not in TAKE_OVERS:
                problem = f"{field}: a scene of kind {kinds[1]} cannot take over one of kind {kinds[0]}"
                raise ConfigError(problem, "what can: " + ", ".join(map(" -> ".join, TAKE_OVERS)), field)
            if kinds[0] == kinds[1]:
                _refuse_other_shape(before.scene, config.scene, field)
            options = {key: value for key, value in config.to_dict().items() if key in STAGED}
            whole.append(Stage(begin_at=stage.begin_at, options=options))
            before = config
        self.__dict__["stages"] = tuple(whole)

    def _of_stage(self, stage: Stage) -> "RunConfig":
        return type(self).model_validate(_Input((), {**self.to_dict(), "stages": (), **stage.options}))

    @property
    def stage_begins(self) -> list[int]:
        """The first step of each stage; the first is the run's own options, from 0."""
        return [0, *(round(stage.begin_at * self.steps) for stage in self.stages)]

    def check_stage(self, stage: int, step: int) -> None:
        """CheckpointError where a scene of `stage` cannot have seen `step` steps: the checkpoint is of another run."""
        begins = [*self.stage_begins, max(self.steps, step)]
        if not (0 <= stage <= len(self.stages) and begins[stage] <= step <= begins[stage + 1]):
            has = ", ".join(f"stage {number} from step {begin}" for number, begin in enumerate(self.stage_begins, 1))
            problem = f"the checkpoint of step {step} is of stage {stage + 1}, which this run is not in at that step"
            raise CheckpointError(problem, hint=f"it has {has}, and {self.steps} steps")

    def views_until(self, step: int) -> int:
        """The views that are rendered in the first `step` steps."""
        ends = [*self.stage_begins[1:], self.steps]
        return sum(
            self.in_stage(number).cameras.views * max(0, min(step, end) - begin)
            for number, (begin, end) in enumerate(zip(self.stage_begins, ends, strict=True))
        )

    def in_stage(self, number: int) -> "RunConfig":
        """The options of a stage, 0 the first: a config without stages, whose `steps` are those of the stage."""
        begins = [*self.stage_begins, self.steps]
        config = self._of_stage(self.stages[number - 1]) if number > 0 else self.model_copy(update={"stages": ()})
        return config.model_copy(update={"steps": begins[number + 1] - begins[number]})

    @property
    def final(self) -> "RunConfig":
        """The options of the last stage: of the scene that a finished run has."""
        return self.in_stage(len(self.stages)) if self.stages else self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunConfig) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_dict(), sort_keys=True))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "RunConfig":
        """The config that `data` describes: what a person said, or all values, as `to_dict` gives them."""
        return cls.model_validate(dict(data))

    def to_dict(self) -> dict[str, Any]:
        """All values, as plain JSON; `from_dict` gives the same config back."""
        return self.model_dump(mode="json")

    @property
    def said(self) -> dict[str, Any]:
        """Only what a person said (preset, file, command line, caller), as nested plain data for `resolve`."""
        return layers.said_values(_layered(self._said))

    @property
    def sources(self) -> dict[str, str]:
        """Where each value is from, by dotted key: "default", "guidance cfd", "preset draft", a file's name, "you"."""
        leaves = layers.flatten(_share_image(_layered(self._said)))
        return {key: _source(leaves.get(key), value) for key, value in layers.flatten(self.to_dict()).items()}

    def with_changes(self, changes: Mapping[str, Any], allowed: Sequence[str] = LIVE) -> "RunConfig":
        """This config with the options of some dotted keys changed, and `said` with it; all other values stay.

        An option changes in all stages that have it, also where a stage said its own. Texts are read as JSON where they
        are JSON, but for prompts. ConfigError for keys that are not `allowed`, that this run does not have, or whose
        value is wrong.
        """
        tree, said = layers.tree_of(self.to_dict(), DEFAULT), layers.said_trees(YOU, _parsed(changes))
        for key in changes:
            if key not in allowed:
                raise ConfigError(f"{key} cannot be changed here", hint="what can: " + ", ".join(allowed), field=key)
            if not _having(tree, key) and not any(_having(stage.options, key) for stage in self.stages):
                raise ConfigError(f"{key} is not an option of this run", field=key)
        own = [change for key, change in zip(changes, said, strict=True) if _having(tree, key)]
        for change in own:
            tree = layers.merge(tree, change)
        values, said_stages = layers.values(tree), self.said.get("stages", [])
        for number, stage in enumerate(values["stages"]):  # they have the values of their own parts
            options = layers.tree_of(stage["options"], DEFAULT)
            for key, change in zip(changes, said, strict=True):
                if not _having(options, key):
                    continue
                options = layers.merge(options, change)
                told = said_stages[number]["options"] if number < len(said_stages) else {}
                if any(name.split(".")[0] == key.split(".")[0] for name in told) or not _having(tree, key):
                    told.pop(key, None)
                    told[key] = _read_value(changes[key])  # last: over what it says of the same part
            stage["options"] = layers.values(options)
        if said_stages != self.said.get("stages", []):
            own += layers.said_trees(YOU, {"stages": said_stages})
        return type(self).model_validate(_Input((*self._said, *own), values))

    @property
    def mesh_file(self) -> Path | None:
        """The file that the run's scene begins as."""
        source = option(self, "scene.source")
        return None if source is None else Path(os.path.expanduser(source.path))

    def with_files(self, rename: Rename) -> "RunConfig":
        """The same with other names for the files of the machine in it, also in `said`."""
        values, said = map_files(self.to_dict(), rename), tuple(map_files(tree, rename) for tree in self._said)
        return type(self).model_validate(_Input(said, values))

    @classmethod
    def restore(cls, said: Mapping[str, Any], resolved: Mapping[str, Any]) -> "RunConfig":
        """A run's config from its two files: the values of `resolved`, whatever today's defaults are."""
        return cls.model_validate(_Input(layers.said_trees(YOU, said), resolved))


def resolve(said: Mapping[str, Any]) -> RunConfig:
    """The config of what a person said, with nested or dotted keys ("guidance.guidance_scale"), in their order.

    Defaults are filled in; naming another part (prior=analytic) starts from that part's defaults.
    """
    return RunConfig.from_dict(said)


def load_config(
    path: Path | str | None = None,
    preset: str | None = None,
    overrides: Mapping[str, object] | None = None,
    recipe: str | None = None,
) -> RunConfig:
    """Preset, then recipe, then file, then overrides, each over the one before; see `resolve`.

    Text values of overrides are read as JSON where they are JSON. The file holds options, or what
    `sds3d generate --print-config --json` printed: of that, what was said counts. Names of files in it
    are looked for beside it, those in overrides in the working folder; see `beside`.
    """
    said: tuple[Tree, ...] = ()
    if preset is not None:
        if preset not in PRESETS:
            raise ConfigError(f"preset {short(preset)} is unknown", nearest(preset, PRESETS), "preset")
        said += layers.said_trees(f"preset {preset}", PRESETS[preset])
    if recipe is not None:
        said += layers.said_trees(f"recipe {recipe}", read_recipe(recipe).options())
    if path is not None:
        data = read_json_object(Path(path))
        is_printed = data.keys() == {*PRINTED} and all(isinstance(part, Mapping) for part in data.values())
        trees = layers.said_trees(str(path), data["said"] if is_printed else data)
        said += tuple(map_files(tree, beside(Path(path).parent)) for tree in trees)
    own = layers.said_trees(YOU, _parsed(overrides or {}))
    said += tuple(map_files(tree, beside(Path())) for tree in own)
    return RunConfig.model_validate(_Input(said))


def with_whole_paths(overrides: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Overrides for `load_config` that come from a file in `folder`, with the names of files as `beside` reads them."""
    found = dict(overrides)
    for key, value in overrides.items():
        read = _read_value(value)
        if (renamed := map_files(read, beside(folder), key)) != read:
            found[key] = renamed
    return found


PRINTED = ("said", "values", "sources")


def printable(config: RunConfig) -> dict[str, Any]:
    """All there is to know about a config, as plain JSON that `load_config` reads."""
    return dict(zip(PRINTED, (config.said, config.to_dict(), config.sources), strict=True))


def option(config: RunConfig, key: str) -> Any:
    """The value of a dotted key; None where this config has no such option."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part, None)
    return value


def in_all_stages(config: RunConfig, key: str) -> list[Any]:
    """The values of a dotted key in those stages that have the option."""
    stages = (config.in_stage(number) for number in range(len(config.stages) + 1))
    return [value for stage in stages if (value := option(stage, key)) is not None]


def local_files(config: Options, prefix: str = "") -> dict[str, Any]:
    """The options, by dotted key, that are set and name files or folders of this machine (see `LocalFile`).

    `prior.model` is among them, though it can be an id of the hub.
    """
    files: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Options):
            files |= local_files(value, f"{prefix}{name}.")
        elif value and any(isinstance(mark, LocalFile) for mark in field.metadata):
            files[prefix + name] = value
    if isinstance(config, RunConfig):  # a stage's scene may be a file as well
        for number in range(len(config.stages)):
            own = local_files(config.in_stage(number + 1)).items()
            files |= {f"stages[{number}].options.{key}": name for key, name in own if key.split(".")[0] in STAGED}
    return files


@cache
def _defaults() -> Tree:
    return layers.tree_of(RunConfig.model_construct().model_dump(mode="json"), DEFAULT)


def _layered(said: Sequence[Tree]) -> Tree:
    """The defaults, then those that prior, scene and guidance bring, then what was said."""
    tree, unwanted = _defaults(), {"steps", "stages"} if _has_own_scenes(said) else set[str]()
    for key in BRING_DEFAULTS:
        kind = _chosen(key, said)
        if kind is not None:
            name = kind.model_fields["name"].default
            brought = {option: value for option, value in kind.default_overrides.items() if option not in unwanted}
            tree = layers.merge(tree, layers.tree_of(brought, f"{key} {name}"))
    for over in said:
        tree = layers.merge(tree, over)
    return _as_drawn(tree)


def _has_own_scenes(said: Sequence[Tree]) -> bool:
    """Whether a person named a scene, or stages: options of a scene alone name none."""
    scenes = [tree["scene"] for tree in said if "scene" in tree]
    is_named = any(isinstance(node, Leaf) or layers.name_in(node) is not None for node in scenes)
    return is_named or any("stages" in tree for tree in said)


def _staged(own: Sequence[Tree], stage: Sequence[Tree], scene: SceneConfig) -> tuple[Tree, ...]:
    """What is said for a stage, over what is said for the run. Of the run's scene another one keeps the background, and
    of the weights of losses those that every scene has."""
    named = [layers.name_in(tree["scene"]) for tree in stage if "scene" in tree]
    other = next((name for name in named if name not in (None, scene.name)), None)
    none = layers.said_trees("stage 1", {"stages": []})  # nor those that the prior would bring
    kept = ({key: node for key, node in tree.items() if key not in ("stages", "export")} for tree in own)  # of the run
    if other is None:
        return (*none, *kept, *stage)
    background = {"scene": {"name": other, "background": scene.background.model_dump(mode="json")}}
    return (*none, *map(_without_weights, kept), *layers.said_trees("stage 1", background), *stage)


def _without_weights(said: Tree) -> Tree:
    """The same without weights of losses that not every scene has."""
    weights = said.get("loss_weights")
    if not isinstance(weights, dict):
        return said
    return {
        **said,
        "loss_weights": {name: weights[name] for name in weights if name in (*OWN_LOSSES, *REFERENCE_WEIGHTS)},
    }


def _refuse_other_shape(before: SceneConfig, scene: SceneConfig, field: str) -> None:
    """ConfigError where a scene cannot go on from the state of one of the same kind: arrays would have other sizes."""
    old, new = (layers.flatten(one.model_dump(mode="json")) for one in (before, scene))
    for key, value in new.items():
        if value != old.get(key) and any(f"{key}.".startswith(f"{name}.") for name in scene.state_shape):
            problem = f"{field}: scene.{key} = {short(value)} cannot change on the way"
            hint = f"the scene goes on with the {short(old.get(key))} that it has: leave scene.{key} out"
            raise ConfigError(problem, hint, f"{field}.options.scene.{key}")


def _having(tree: Mapping[str, Any], key: str) -> bool:
    """Whether nested data has the option of a dotted key."""
    return key in layers.flatten(tree)


def _as_drawn(tree: Tree) -> Tree:
    """A scene whose colours are a surface's own has the light, the palette and the shapes that the prior's pictures are
    drawn with, if nobody said otherwise."""
    scene, prior = tree["scene"], PRIORS.get(str(layers.name_in(tree["prior"])))
    if prior is None or not isinstance(scene, dict) or "light" not in scene:
        return tree
    source = f"prior {prior.model_fields['name'].default}"
    light, colors = scene["light"], scene["colors"]
    if prior.light is not None and not (isinstance(light, Leaf) and light.is_said):
        lit = layers.tree_of(prior.light, source)
        light = lit if isinstance(light, Leaf) else layers.merge(lit, light)
    told = colors.get("palette") if isinstance(colors, dict) else None
    if prior.flat_colors and isinstance(told, Leaf) and not told.is_said:
        colors = {**colors, "palette": Leaf(True, source, is_said=False)}
    told, source_file = scene.get("primitives"), scene.get("source")
    begins_anew = isinstance(source_file, Leaf) and source_file.value is None  # a person's shape stays theirs
    if prior.simple_shapes and begins_anew and isinstance(told, Leaf) and not told.is_said:
        scene = {**scene, "primitives": Leaf(True, source, is_said=False)}
    return {**tree, "scene": {**scene, "light": light, "colors": colors}}


def _chosen(key: str, said: Sequence[Tree]) -> type[Any] | None:
    """The class of the part that was named last, the default where none was; None for an unknown name."""
    kind: type[Any] | None = type(RunConfig.model_fields[key].default)
    for node in (tree[key] for tree in said if key in tree):
        if isinstance(node, Leaf) and isinstance(node.value, Options):
            kind = type(node.value)
        elif (name := layers.name_in(node)) is not None:
            kind = PARTS[key].get(name) if isinstance(name, str) else None
    return kind


def _source(node: Any, value: Any) -> str:
    """Who gave a value, by the leaf of the layers at its key."""
    if not isinstance(node, Leaf):
        return DEFAULT
    return node.source if node.is_said or _gives(node.value, value) else SAVED


def _gives(default: Any, value: Any) -> bool:
    """Whether a default is what a value is made of; stages are brought with what they name, and have all options."""
    if isinstance(default, Mapping) and isinstance(value, Mapping):
        return all(key in value and _gives(inner, value[key]) for key, inner in default.items())
    if isinstance(default, list) and isinstance(value, list):
        return len(default) == len(value) and all(map(_gives, default, value))
    return bool(default == value)


def _share_image(tree: Tree) -> Tree:
    """One reference image for the run and a prior that takes one, if only one of them has it."""
    prior, image = tree["prior"], tree["reference_image"]
    kind = PRIORS.get(str(layers.name_in(prior)))
    if kind is None or not kind.takes_reference_image:
        return tree
    own = prior.get("reference_image")
    if isinstance(image, Leaf) and image.value is None and isinstance(own, dict):
        return {**tree, "reference_image": own}
    if own is None and not (isinstance(image, Leaf) and image.value is None):
        return {**tree, "prior": {**prior, "reference_image": image}}
    return tree


def _refuse_combinations(config: RunConfig) -> None:
    """ConfigError for options that are each fine and make no sense together."""
    for field, other, hint in _combinations(config):
        raise ConfigError(f"{field} = {short(option(config, field))} does not go with {other}", hint, field)
    known = {*config.scene.losses, *OWN_LOSSES, *REFERENCE_WEIGHTS}
    for name in config.loss_weights:
        if name not in known:
            problem = f"loss_weights.{short(name, quote=False)} is not a loss of the scene {config.scene.name}"
            raise ConfigError(problem, nearest(name, known, "loss_weights."), "loss_weights")


def _refuse_search(config: RunConfig) -> None:
    """ConfigError for options of the search for a surface, if a person said them and the run ends with one."""
    said = {name for tree in config._said if isinstance(tree.get("export"), dict) for name in tree["export"]}
    for name in sorted(said & {"level", "resolution"}):
        field, value = f"export.{name}", getattr(config.export, name)
        if value != type(config.export).model_fields[name].default and (scene := config.final.scene).has_surface:
            problem = f"{field} = {value:g} does not go with the scene {scene.name}, which has a surface of its own"
            hint = "leave it out: nothing is searched for; a run with scene=gaussians ends with splats"
            raise ConfigError(problem, hint, field)


def _combinations(config: RunConfig) -> Iterator[tuple[str, str, str]]:
    """(the option, what it does not go with and why, what to do) of all combinations to refuse."""
    guidance, prior, scene, cameras = config.guidance, config.prior, config.scene, config.cameras
    views, particles, image = cameras.views, config.particles, config.reference_image
    saves, milestones = config.checkpoint_every, config.milestone_every
    geometry = next((name for name in ("depth", "normal") if getattr(image, name, None)), None)
    if guidance.needs_monotonic_t and not config.timesteps.is_monotonic:
        other = f"{guidance.name}, which needs one t for all views that only falls"
        yield "timesteps.name", other, f"use {_with(TIMESTEPS, 'is_monotonic')}"
    if not guidance.uses_noise and not isinstance(config.noise, Fresh):
        other = f"{guidance.name}, which computes its noise by inversion and draws none"
        yield "noise.name", other, "leave noise out"
    if config.view_prompting.mode == "perp_neg" and not guidance.uses_cfg:
        other = f"{guidance.name}, which has no classifier-free guidance for it to act on"
        yield "view_prompting.mode", other, f"use it with {_with(GUIDANCE, 'uses_cfg')}"
    if config.view_prompting.mode == "perp_neg" and not prior.reads_views:
        other = f"the prior {prior.name}, which reads no words for sides"
        yield "view_prompting.mode", other, f"use it with {_with(PRIORS, 'reads_views')}"
    if guidance.needs_density and not prior.knows_density:
        other = f"the prior {prior.name}: it needs the prior's density, not only its score"
        yield "guidance.divergence", other, f"use divergence=reverse_kl, or the prior {_with(PRIORS, 'knows_density')}"
    if image is not None and particles > 1:
        yield "particles", "reference_image: all particles would be made to match it", "use particles=1"
    if scene.is_flat and geometry is not None:
        other = f"the scene {scene.name}, which is flat"
        yield f"reference_image.{geometry}", other, "leave it out, or use another scene"
    if prior.needs_orthogonal_views and views % 4 > 0:
        other = f"the prior {prior.name}, which judges views in groups of four"
        yield "cameras.views", other, f"use cameras.views={-(-views // 4) * 4}"
    if prior.needs_orthogonal_views and not cameras.orthogonal_views:
        other = f"the prior {prior.name}, which judges four views at right angles together"
        yield "cameras.orthogonal_views", other, "use cameras.orthogonal_views=true"
    if views % particles > 0:
        other = f"particles = {particles}: each particle is rendered in as many views"
        yield "cameras.views", other, f"use cameras.views={-(-views // particles) * particles}"
    if milestones % saves > 0:
        other = f"checkpoint_every = {saves}: only a checkpoint that is made can stay"
        yield "milestone_every", other, f"use milestone_every={-(-milestones // saves) * saves}"


def _with(table: Mapping[str, Any], fact: str) -> str:
    """Names of the parts for which `fact` is true."""
    return ", ".join(name for name, part in table.items() if getattr(part, fact))


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a small text file; ConfigError where it is anything else."""
    text = read_text(path, MAX_FILE_BYTES, "a config file")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {str(error) or 'nested too deeply'}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}, not an object with the run's options")
    return data


def _parsed(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Texts read as JSON where they are JSON, but for prompts."""
    return {key: value if key in TEXTS else _read_value(value) for key, value in overrides.items()}


def _read_value(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _part(key: str, value: object) -> object:
    if isinstance(value, Options):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} = {short(value)} is not allowed: say a name, or an object with a name", "", key)
    table, name = PARTS[key], value.get("name")
    if not isinstance(name, str) or name not in table:
        raise ConfigError(f"{key}.name = {short(name)} is unknown", nearest(str(name), table), key)
    try:
        return table[name].model_validate(value)
    except ValidationError as error:
        raise explain(table[name], value, error, key + ".") from None
