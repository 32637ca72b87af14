"""RunConfig: everything that decides a run. Files, command line, web page and checkpoints all come through here."""

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, InstanceOf, SerializeAsAny

from sds3d.cameras import CamerasConfig
from sds3d.config.explain import nearest, short, validated
from sds3d.errors import ConfigError
from sds3d.export import ExportConfig
from sds3d.guidance import GUIDANCE, SDS, Guidance
from sds3d.guidance.noise import NOISE, Fresh, Noise
from sds3d.guidance.timesteps import TIMESTEPS, Annealed, Timesteps
from sds3d.options import Options, Scheduled
from sds3d.priors import PRIORS, EmbeddedConfig, PriorConfig
from sds3d.prompts import ViewPrompting, check_prompt, check_text
from sds3d.reference_image import ReferenceImageConfig
from sds3d.scenes import SCENES, GaussiansConfig, SceneConfig
from sds3d.scenes.optimizer import OptimConfig

# Parts that are chosen by name: {"name": "sds", "guidance_scale": 20}, or just "sds".
PARTS: dict[str, Mapping[str, type[Options]]] = {
    "scene": SCENES,
    "prior": PRIORS,
    "guidance": GUIDANCE,
    "timesteps": TIMESTEPS,
    "noise": NOISE,
}
TEXTS = {"prompt", "negative_prompt"}  # overrides of these are never read as JSON
MAX_FILE_BYTES = 1 << 20


def _check_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,2})?", name):
        raise ValueError("known: auto, cpu, cuda, cuda:N")
    return name


class RunConfig(Options):
    """One run. `from_dict` is the way in for anything a person wrote."""

    prompt: Annotated[str, AfterValidator(check_prompt)]
    negative_prompt: Annotated[str, AfterValidator(check_text)] = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 600
    device: Annotated[str, AfterValidator(_check_device)] = "auto"
    scene: SerializeAsAny[InstanceOf[SceneConfig]] = GaussiansConfig()
    particles: Annotated[int, Field(ge=1, le=64, description="scenes that are made at once and share the views")] = 1
    prior: SerializeAsAny[InstanceOf[PriorConfig]] = EmbeddedConfig()
    guidance: SerializeAsAny[InstanceOf[Guidance]] = SDS()
    timesteps: SerializeAsAny[InstanceOf[Timesteps]] = Annealed()
    noise: SerializeAsAny[InstanceOf[Noise]] = Fresh()
    cameras: CamerasConfig = CamerasConfig()
    view_prompting: ViewPrompting = ViewPrompting()
    reference_image: Annotated[
        ReferenceImageConfig | None,
        Field(description="a picture of the object, which its own view of the scene has to match"),
    ] = None
    optim: OptimConfig = OptimConfig()
    loss_weights: Annotated[
        Mapping[str, Scheduled], Field(description="weight of each regularizer of the scene; 0 where not named")
    ] = {}
    export: ExportConfig = ExportConfig()
    log_every: Annotated[int, Field(ge=1)] = 10
    preview_every: Annotated[int, Field(ge=0, description="steps between preview images; 0 for none")] = 100
    preview_seconds: Annotated[
        float, Field(ge=0, le=3600, description="a preview also whenever so much time has passed since the last; 0: no")
    ] = 0.0
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    checkpoints_kept: Annotated[int, Field(ge=1, le=1000, description="of the newest")] = 2
    milestone_every: Annotated[
        int, Field(ge=0, description="checkpoints of every so many steps stay, besides the newest; 0: none do")
    ] = 0
    rollbacks: Annotated[
        int, Field(ge=0, le=100, description="times in a row that a run may go back to its last checkpoint, slower")
    ] = 3
    janus_every: Annotated[
        int, Field(ge=0, description="steps between looks at whether sides look like sides; 0: at the end only")
    ] = 0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "RunConfig":
        """The config that `data` describes; ConfigError names the first thing that is wrong with it.

        Prior, scene and guidance bring the options of other parts that they want, where nothing else is said.
        """
        data = dict(data)
        for key, wanted in _default_overrides(data).items():
            given = data.get(key, {})
            if isinstance(given, Mapping) and "name" not in given:
                data[key] = {**({"name": wanted} if isinstance(wanted, str) else wanted), **given}
        _share_picture(data)
        data = {key: _part(key, value) if key in PARTS else value for key, value in data.items()}
        config: RunConfig = validated(cls, data, "")
        _refuse_combinations(config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` gives the same config back."""
        return self.model_dump(mode="json")


def _share_picture(data: dict[str, Any]) -> None:
    """A prior that goes by a picture goes by the run's, and the run by the prior's, where only one of them is told."""
    prior, picture = data.get("prior"), data.get("reference_image")
    prior = {"name": prior} if isinstance(prior, str) else prior
    if isinstance(prior, Mapping) and prior.get("name") == "zero123":
        if picture is None and isinstance(prior.get("reference_image"), Mapping):
            data["reference_image"] = prior["reference_image"]
        elif picture is not None and "reference_image" not in prior:
            data["prior"] = {**prior, "reference_image": picture}


def load_config(
    path: Path | str | None = None, preset: str | None = None, overrides: Mapping[str, object] | None = None
) -> RunConfig:
    """Preset, then file, then overrides, each over the one before.

    Overrides have dotted keys ("guidance.guidance_scale"); their text values are read as JSON where they are JSON.
    Choosing another part by name (prior=analytic) starts from that part's defaults.
    """
    from sds3d.config.presets import PRESETS

    layers: list[Mapping[str, Any]] = []
    if preset is not None:
        if preset not in PRESETS:
            raise ConfigError(f"preset {short(preset)} is unknown", nearest(preset, PRESETS), "preset")
        layers.append(PRESETS[preset])
    if path is not None:
        layers.append(read_json_object(Path(path)))
    for key, value in (overrides or {}).items():
        nested: Any = value if key in TEXTS else parsed(value)
        for name in reversed(key.split(".")):
            nested = {name: nested}
        layers.append(nested)
    said: dict[str, Any] = {}
    for layer in layers:
        _merge(said, deepcopy(layer))
    data = RunConfig(prompt="-").to_dict()
    del data["prompt"]
    for layer in [_default_overrides(said), *layers]:
        _merge(data, layer)
    return RunConfig.from_dict(data)


def _refuse_combinations(config: RunConfig) -> None:
    """ConfigError where two parts that are fine alone make no sense together."""
    for clash, what, hint in _combinations(config):
        if clash:
            raise ConfigError(what, hint=hint)


def _combinations(config: RunConfig) -> list[tuple[bool, str, str]]:
    """(whether it is there, what does not go together and why, what to do instead) of every combination to refuse."""
    guidance, name, prior = config.guidance, config.guidance.name, config.prior
    views, particles, perp_neg = config.cameras.views, config.particles, config.view_prompting.mode == "perp_neg"
    return [
        (
            guidance.needs_monotonic_t and not config.timesteps.is_monotonic,
            f"timesteps = {config.timesteps.name!r} does not go with {name}: it follows one t that falls",
            f"use {_with(TIMESTEPS, 'is_monotonic')}",
        ),
        (
            not guidance.uses_noise and not isinstance(config.noise, Fresh),
            f"noise = {config.noise.name!r} does not go with {name}: it finds its noise and uses none that is drawn",
            "leave noise out",
        ),
        (
            perp_neg and not guidance.uses_cfg,
            f"view_prompting.mode = 'perp_neg' does not go with {name}: it has no classifier-free guidance to act on",
            f"use it with {_with(GUIDANCE, 'uses_cfg')}",
        ),
        (
            perp_neg and not prior.reads_views,
            f"view_prompting.mode = 'perp_neg' does not go with the prior {prior.name}: it reads no words for sides",
            f"use it with {_with(PRIORS, 'reads_views')}",
        ),
        (
            guidance.needs_density and not prior.knows_density,
            f"{name} as it is set does not go with the prior {prior.name}: it needs its density, not only its score",
            f"use divergence=reverse_kl, or the prior {_with(PRIORS, 'knows_density')}",
        ),
        (
            config.reference_image is not None and particles > 1,
            f"reference_image does not go with particles = {particles}: they would all be made to match it",
            "use particles=1",
        ),
        (
            config.scene.is_flat
            and config.reference_image is not None
            and (config.reference_image.depth or config.reference_image.normal) is not None,
            f"reference_image.depth and reference_image.normal do not go with the scene {config.scene.name}: it is flat",
            "leave them out, or use another scene",
        ),
        (
            prior.name == "multiview" and (views % 4 > 0 or not config.cameras.orthogonal_views),
            f"cameras.views = {views}, cameras.orthogonal_views = {config.cameras.orthogonal_views} do not go with the prior multiview",
            "use cameras.views=4 cameras.orthogonal_views=true",
        ),
        (
            views % particles > 0,
            f"cameras.views = {views} does not go with particles = {particles}: each is shown in as many as the others",
            f"use cameras.views={-(-views // particles) * particles}",
        ),
    ]


def _with(table: Mapping[str, Any], fact: str) -> str:
    """Names of the parts of which `fact` is true."""
    return ", ".join(name for name, part in table.items() if getattr(part, fact))


def _default_overrides(data: Mapping[str, Any]) -> dict[str, Any]:
    """What prior, scene and guidance want of other parts; where two want the same, the guidance has the last word."""
    wanted: dict[str, Any] = {}
    tables: Mapping[str, Mapping[str, Any]] = {"prior": PRIORS, "scene": SCENES, "guidance": GUIDANCE}
    for key, table in tables.items():
        part = data.get(key, RunConfig.model_fields[key].default)
        part = _named(key, part) if isinstance(part, str) else part
        name = part.get("name") if isinstance(part, Mapping) else getattr(part, "name", part)
        if isinstance(name, str) and name in table:
            wanted |= deepcopy(dict(table[name].default_overrides))
    return wanted


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a small text file; ConfigError where it is anything else."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path} has more than {MAX_FILE_BYTES} bytes: not a config file")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {str(error) or 'nested too deeply'}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}, not an object with the run's options")
    return data


def _merge(base: dict[str, Any], over: Mapping[str, Any], parts: Mapping[str, Any] = PARTS) -> None:
    """Put `over` into `base`, objects key by key. An object of another name takes the place of the old one."""
    for key, given in over.items():
        value = _named(key, given) if key in parts and isinstance(given, str) else given
        old = base.get(key)
        if not (isinstance(value, Mapping) and isinstance(old, dict)):
            base[key] = value
            continue
        name = value.get("name", old.get("name"))
        if name != old.get("name"):
            known = parts.get(key, {}).get(name) if isinstance(name, str) else None
            kept = old if known and issubclass(known, parts[key].get(old.get("name", ""), type(None))) else {}
            base[key] = known.model_construct().model_dump(mode="json") | kept if known else {}  # else all defaults
        _merge(base[key], value, parts={})


def parsed(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _named(key: str, text: str) -> dict[str, Any]:
    """A part chosen by one word. For the prior, anything with a slash is a model's folder or hub id."""
    if key == "prior" and text not in PRIORS and "/" in text:
        return {"name": "diffusers", "model": text}
    return {"name": text}


def _part(key: str, value: object) -> object:
    """The part's own config object, chosen by its name (the default one where none is given)."""
    if isinstance(value, str):
        value = _named(key, value)
    if isinstance(value, Options):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} = {short(value)} is not allowed: say a name, or an object with a name", "", key)
    table, default = PARTS[key], RunConfig.model_fields[key].default
    name = value.get("name", default.name)
    if not isinstance(name, str) or name not in table:
        raise ConfigError(f"{key}.name = {short(name)} is unknown", nearest(str(name), table), key)
    return validated(table[name], {**value, "name": name}, key + ".")
