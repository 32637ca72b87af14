"""One finished run in numbers, beside the same numbers of its truth."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

from sds3d.errors import CheckpointError, ConfigError
from sds3d.evaluation.alignment import place, silhouette_cameras
from sds3d.evaluation.classifier import Classifier
from sds3d.evaluation.classifier_scores import attribute_shares, judged
from sds3d.evaluation.clip import Clip
from sds3d.evaluation.ground_truth import draw_truths, pieces, shape_scores
from sds3d.evaluation.renders import (
    GREY,
    Pictures,
    mesh_pictures,
    pictures_psnr,
    scene_pictures,
    scored_cameras,
    strip,
    true_pictures,
)
from sds3d.export import read_glb
from sds3d.priors.embedded.captions import Description, parse
from sds3d.priors.embedded.solids import Solid
from sds3d.prompts import view_index
from sds3d.run.artifacts import ARTIFACTS
from sds3d.sweeps.run_set import failure
from sds3d.training.session import REPORT, Session

ANY_BODIES = 1  # of a thing whose truth is not known
METRICS = {  # what a table shows, in its order: heading, and what it is
    "accuracy": ("attributes", "share of the caption's attributes that the classifier finds, mean over views"),
    "all_right": ("all right", "share of the views in which the classifier finds every attribute"),
    "r_precision": ("R-prec", "share of the views whose own caption is the likeliest of 100 to the classifier"),
    "silhouette_iou": ("sil. IoU", "overlap of silhouettes with the truth's, mean over 8 views"),
    "volume_iou": ("vol. IoU", "overlap of the mesh's volume with the truth's"),
    "chamfer": ("chamfer", "mean distance between the mesh's surface and the truth's, in radii; 0.006 is equal"),
    "agreement": ("agree", "how far the classifier's answers are the same over the views"),
    "mesh_psnr": ("mesh dB", "PSNR of the mesh's renders against the scene's"),
    "janus": ("Janus", "share of the views not from the front that look like the front"),
    "prior_sides": ("sides", "share of the views that the run's own prior reads as the side that they are"),
    "saturation": ("satur.", "mean colour saturation"),
    "translucency": ("translucency", "share of covered pixels that are neither empty nor solid"),
    "floaters": ("floaters", "share of covered pixels outside the object's own bodies"),
    "clip": ("CLIP", "100 times the cosine of picture and prompt"),
    "clip_sides": ("CLIP sides", "share of the views that CLIP reads as the side (front, side, back) that they are"),
    "seconds": ("s", "wall time of the run"),
    "forwards": ("forwards", "pictures that the prior looked at"),
}
LIMITS = {"seen": 0.85, "held-out": 0.75}  # attribute accuracy below which a run has failed
SILHOUETTE_LIMIT, FLOATERS_LIMIT = 0.75, 0.01


@dataclass(frozen=True)
class Scores:
    """`values` has those of METRICS that could be measured; `notes` says why others could not."""

    run: str
    prompt: str
    guidance: str
    scene: str
    seed: int
    steps: int
    split: str  # seen, held-out, or unknown where the prompt is outside the procedural world
    values: dict[str, float] = field(default_factory=dict)
    attributes: dict[str, float] = field(default_factory=dict)  # share of the views that show each
    truth: dict[str, float] = field(default_factory=dict)  # what the true object gets from the same classifier
    yaw_deg: float | None = None  # how far the object is turned against the truth
    scale: float | None = None
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # limits that it missed

    def to_dict(self) -> dict[str, Any]:
        """Plain values, rounded to four places."""
        return {key: _rounded(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Evaluated:
    """Scores and what to show beside them."""

    scores: Scores
    strip: UInt8[ndarray, "H W 3"]


def evaluate_run(
    folder: Path,
    classifier: Classifier,
    captions: Sequence[Description],
    clip: Clip | None = None,
    seconds: float | None = None,
) -> Evaluated:
    """Scores a finished run. `captions` are what retrieval chooses from, `seconds` what the run may take.

    CheckpointError where the folder holds no finished run, ConfigError where its scene is flat.
    """
    session = Session.resume(folder)
    config = session.config
    if not (folder / REPORT).is_file():
        raise CheckpointError(f"{folder} holds a run that is not finished", hint=f"sds3d resume {folder}")
    if config.scene.is_flat:
        raise ConfigError(
            f"{folder} holds a scene of kind {config.scene.name}, which is flat: it has no views to classifier"
        )
    report = json.loads((folder / REPORT).read_text())
    meant, scene = parse(config.prompt), session.scene()
    pictures = scene_pictures(scene, scored_cameras())
    values = {
        "saturation": pictures.saturation(),
        "translucency": pictures.translucency(),
        **_costs(report, config.cameras.views),
    }
    notes, more, truths = list[str](), dict[str, Any](), list[list[Solid]]()
    if meant is None:
        notes.append("the prompt is outside the procedural world: no truth to compare with, nothing for the classifier")
        values["floaters"] = pictures.floaters(ANY_BODIES)
    else:
        truths = draw_truths(meant)
        more = _against_truth(classifier, pictures, meant, truths, list(captions))
        masks = scene_pictures(scene, silhouette_cameras()).opacity > 0.5
        placed = place(masks, truths)
        more |= {"yaw_deg": placed.yaw_deg, "scale": placed.scale}
        values |= {**more.pop("values"), "silhouette_iou": placed.silhouette_iou}
    mesh_path = folder / ARTIFACTS["glb"].file_name
    if mesh_path.is_file():
        mesh = read_glb(mesh_path)
        values["mesh_psnr"] = pictures_psnr(mesh_pictures(mesh, pictures.cameras), pictures)
        if truths:
            shape = shape_scores(mesh, truths, placed.yaw_deg, placed.scales)
            values |= shape
            notes += [] if shape else ["the mesh is not closed: its volume is not compared"]
    else:
        notes.append(f"no mesh: {report.get('mesh', {}).get('refused', 'none was written')}")
    if clip is not None:
        values["clip"] = clip.score(pictures.over(GREY), config.prompt)
        side = view_index(pictures.cameras.azimuth, pictures.cameras.elevation)
        values["clip_sides"] = clip.side_agreement(pictures.over(GREY), config.prompt, side)
    if "janus" in report.get("metrics", {}):
        values["prior_sides"] = report["metrics"]["janus"]["agreement"]
    split = "unknown" if meant is None else "held-out" if meant.held_out() else "seen"
    scores = Scores(
        str(folder), config.prompt, config.guidance.name, config.scene.name, config.seed, config.steps, split,
        values={name: values[name] for name in METRICS if name in values}, notes=notes,
        failed=[*diverged(folder, report), *missed(split, values, seconds, mesh_path.is_file())], **more,
    )  # fmt: skip
    return Evaluated(scores, strip(scene, truths[0] if truths else None))


def _against_truth(
    classifier: Classifier,
    pictures: Pictures,
    meant: Description,
    truths: list[list[Solid]],
    captions: list[Description],
) -> dict[str, Any]:
    """What the classifier says of the run, and of the first draw of the truth."""
    true = true_pictures(truths[0], pictures.cameras)
    values = judged(classifier, pictures, meant, captions)
    values["floaters"] = pictures.floaters(max(pieces(solids) for solids in truths))
    ceiling = {
        **judged(classifier, true, meant, captions),
        "saturation": true.saturation(),
        "translucency": true.translucency(),
    }
    return {"values": values, "attributes": attribute_shares(classifier, pictures, meant), "truth": ceiling}


def _costs(report: dict[str, Any], views: int) -> dict[str, float]:
    return {
        "seconds": report["seconds"]["total"],
        "forwards": report["prior_forwards_per_step"] * report["steps"] * views,
    }


def diverged(folder: Path, report: dict[str, Any]) -> list[str]:
    """That the run ended before its last step, where it did."""
    reason = failure(folder)
    return [] if reason is None else [f"ended after {report['steps']} steps: {reason}"]


def missed(split: str, values: dict[str, float], seconds: float | None, has_mesh: bool) -> list[str]:
    """Which limits the run misses, in words."""
    found = []
    if "accuracy" in values and values["accuracy"] < LIMITS[split]:
        found.append(f"attributes {values['accuracy']:.2f} < {LIMITS[split]}")
    if "silhouette_iou" in values and values["silhouette_iou"] < SILHOUETTE_LIMIT:
        found.append(f"silhouette IoU {values['silhouette_iou']:.2f} < {SILHOUETTE_LIMIT}")
    if values["floaters"] > FLOATERS_LIMIT:
        found.append(f"floaters {values['floaters']:.3f} > {FLOATERS_LIMIT}")
    if seconds is not None and values["seconds"] > seconds:
        found.append(f"{values['seconds']:.0f} s > {seconds:.0f} s")
    return found if has_mesh else [*found, "no mesh"]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    return {key: _rounded(inner) for key, inner in value.items()} if isinstance(value, dict) else value
