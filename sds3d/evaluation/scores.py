"""The scores of one finished run, beside the same scores of its truth; and those by which best-of-N chooses."""

import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

from sds3d.config import RunConfig
from sds3d.errors import CheckpointError, ConfigError
from sds3d.evaluation.classifier import Classifier, load_classifier
from sds3d.evaluation.classifier_scores import attribute_shares, score_renders
from sds3d.evaluation.clip import Clip
from sds3d.evaluation.ground_truth import align, draw_truths, pieces, shape_scores, silhouette_cameras, solid_body
from sds3d.evaluation.renders import GREY, mesh_psnr, scene_renders, scored_cameras, strip, true_renders
from sds3d.export.glb import read_glb
from sds3d.export.info import read_info
from sds3d.export.placement import Placement
from sds3d.metrics import view_classifier
from sds3d.metrics.mesh import triangles_of
from sds3d.metrics.roughness import crease_figures
from sds3d.priors.embedded.captions import Description, parse
from sds3d.prompts import view_index
from sds3d.scenes import Scene
from sds3d.sweeps.best_of import Scorer
from sds3d.sweeps.run_set import failure
from sds3d.training.session import Session

UNKNOWN_BODIES = 1  # of an object whose truth is not known
METRICS = {  # in the order of the tables: heading and description
    "accuracy": ("attributes", "share of the caption's attributes that the classifier finds, mean over views"),
    "all_right": ("all right", "share of the views in which the classifier finds every attribute"),
    "r_precision": ("R-prec", "share of the views whose own caption is the likeliest of 100 to the classifier"),
    "silhouette_iou": ("sil. IoU", "overlap of silhouettes with the truth's, mean over 8 views"),
    "volume_iou": ("vol. IoU", "overlap of the mesh's volume with the truth's"),
    "chamfer": ("chamfer", "mean distance between the mesh's surface and the truth's, in radii; 0.006 is equal"),
    "normal_error": ("normals", "mean angle between the mesh's surface and the truth's, in degrees: lumps"),
    "roughness": ("rough", "mean angle by which faces stick out of the surface that their neighbours make, degrees"),
    "crease_length": ("creases", "length of the mesh's edges above 35 degrees, in its radii; see the truth's"),
    "agreement": ("agree", "share of the views with the classifier's most frequent label, mean over attributes"),
    "mesh_psnr": ("mesh dB", "PSNR of the mesh's renders against the scene's"),
    "janus": ("Janus", "share of the views not from the front that look like the front"),
    "prior_sides": ("sides", "share of the views whose side the run's own prior recognizes"),
    "saturation": ("satur.", "mean colour saturation"),
    "translucency": ("translucency", "share of covered pixels that are neither empty nor solid"),
    "floaters": ("floaters", "share of covered pixels outside the object's largest patches"),
    "clip": ("CLIP", "100 times the cosine of image and prompt"),
    "clip_sides": ("CLIP sides", "share of the views whose side (front, side, back) CLIP recognizes"),
    "seconds": ("s", "wall time of the run"),
    "forwards": ("forwards", "images that the prior evaluated"),
}
LIMITS = {"seen": 0.85, "held-out": 0.75}  # attribute accuracy below which a run has failed
SILHOUETTE_LIMIT, FLOATERS_LIMIT = 0.75, 0.01


@dataclass(frozen=True)
class Scores:
    """Those of METRICS that could be measured, in `values`; `notes` says why others could not."""

    run: str
    prompt: str
    guidance: str
    scene: str
    seed: int
    steps: int
    split: str  # seen, held-out, or unknown for a prompt outside the procedural world
    values: dict[str, float] = field(default_factory=dict)
    attributes: dict[str, float] = field(default_factory=dict)  # share of the views that show each
    truth: dict[str, float] = field(default_factory=dict)  # the true object's scores by the same classifier
    yaw_deg: float | None = None  # rotation of the object against the truth
    scale: float | None = None
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # limits that it missed

    def to_dict(self) -> dict[str, Any]:
        """Plain values, rounded to four places."""
        return {key: _rounded(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Evaluated:
    """Scores and a strip of images to show beside them."""

    scores: Scores
    strip: UInt8[ndarray, "H W 3"]


def evaluate_run(
    folder: Path,
    classifier: Classifier,
    captions: list[Description],
    clip: Clip | None = None,
    seconds: float | None = None,
) -> Evaluated:
    """Scores of a finished run; retrieval chooses from `captions`, and a run of more than `seconds` fails.

    CheckpointError if the folder holds no finished run, ConfigError for a flat scene.
    """
    session = Session.resume(folder)
    config, report = session.config, session.folder.report()
    if report is None:
        hint = f"sds3d resume {shlex.quote(str(folder))}"
        raise CheckpointError(f"{folder} holds a run that is not finished", hint=hint)
    if config.final.scene.is_flat:
        raise ConfigError(
            f"{folder} holds a scene of kind {config.final.scene.name}, which is flat: it has no views to score"
        )
    description, made = parse(config.prompt), session.made()
    scene = made.scene
    truths = [] if description is None else draw_truths(description)
    renders = scene_renders(scene, scored_cameras())
    values = {
        **renders.looks(),
        "floaters": renders.floaters(max((pieces(solids) for solids in truths), default=UNKNOWN_BODIES)),
        "seconds": report["seconds"]["total"],
        "forwards": report["prior_forwards_per_step"] * config.views_until(report["steps"]),
    }
    notes, by_truth = list[str](), dict[str, Any]()
    keeps_shape = "textured" in config.final.scene.results
    if description is None:
        notes.append("the prompt is outside the procedural world: no truth to compare with, nothing for the classifier")
    else:
        alignment = align(scene_renders(scene, silhouette_cameras()).opacity > 0.5, truths)
        values |= score_renders(classifier, renders, description, captions)
        if not keeps_shape:
            values["silhouette_iou"] = alignment.silhouette_iou
        true = true_renders(truths[0], renders.cameras)
        by_truth = {
            "attributes": attribute_shares(classifier, renders, description),
            "truth": {**score_renders(classifier, true, description, captions), **true.looks()},
            "yaw_deg": alignment.yaw_deg,
            "scale": alignment.scales[alignment.draw],
        }
    mesh_path = session.folder.artifact("glb")
    if mesh_path.is_file():
        mesh = Placement.of(read_info(mesh_path).made).undo(read_glb(mesh_path))
        values["roughness"], values["crease_length"] = crease_figures(mesh.vertices, mesh.faces)
        values["mesh_psnr"] = mesh_psnr(mesh, scene, renders.cameras)
        if truths:
            body = triangles_of(solid_body(truths[alignment.draw]))
            by_truth["truth"]["roughness"], by_truth["truth"]["crease_length"] = crease_figures(*body)
            shape = shape_scores(mesh, truths, alignment.yaw_deg, alignment.scales)
            values |= shape
            notes += [] if shape else ["the mesh is not closed: its volume is not compared"]
    elif keeps_shape:
        notes.append("the shape is that of the file: its colours alone are scored")
    else:
        notes.append(f"no mesh: {report.get('mesh', {}).get('refused', 'none was written')}")
    if clip is not None:
        values["clip"] = clip.score(renders.over(GREY), config.prompt)
        side = view_index(renders.cameras.azimuth, renders.cameras.elevation)
        values["clip_sides"] = clip.side_agreement(renders.over(GREY), config.prompt, side)
    if "janus" in report.get("metrics", {}):
        values["prior_sides"] = report["metrics"]["janus"]["agreement"]
    split = "unknown" if description is None else "held-out" if description.held_out() else "seen"
    ended = failure(folder)
    failed = [] if ended is None else [f"ended after {report['steps']} steps: {ended}"]
    failed += missed(split, values, seconds, session.folder.artifact("textured" if keeps_shape else "glb").is_file())
    scores = Scores(
        str(folder), config.prompt, config.guidance.name, made.parts.scene.name, config.seed, config.steps, split,
        values={name: values[name] for name in METRICS if name in values}, notes=notes, failed=failed, **by_truth,
    )  # fmt: skip
    return Evaluated(scores, strip(scene, truths[0] if truths else None))


def missed(split: str, values: dict[str, float], seconds: float | None, has_mesh: bool) -> list[str]:
    """The limits that the run misses, in words."""
    misses = []
    if "accuracy" in values and values["accuracy"] < LIMITS[split]:
        misses.append(f"attributes {values['accuracy']:.2f} < {LIMITS[split]}")
    if "silhouette_iou" in values and values["silhouette_iou"] < SILHOUETTE_LIMIT:
        misses.append(f"silhouette IoU {values['silhouette_iou']:.2f} < {SILHOUETTE_LIMIT}")
    if values["floaters"] > FLOATERS_LIMIT:
        misses.append(f"floaters {values['floaters']:.3f} > {FLOATERS_LIMIT}")
    if seconds is not None and values["seconds"] > seconds:
        misses.append(f"{values['seconds']:.0f} s > {seconds:.0f} s")
    return misses if has_mesh else [*misses, "no mesh"]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    return {key: _rounded(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def scorer_for(config: RunConfig) -> Scorer:
    """Scores by the classifier for prompts of the procedural world; for others by whether the prior recognizes sides.

    ConfigError for a flat scene, or if the prior tells no sides apart.
    """
    if config.final.scene.is_flat:
        raise ConfigError(f"a scene of kind {config.final.scene.name} is flat: it has no sides to rank it by")
    description = parse(config.prompt)
    if description is None and not (config.prior.reads_views or config.prior.reads_cameras):
        raise ConfigError(f"the prior {config.prior.name} tells no sides apart: there is nothing to rank by")
    classifier = None if description is None else load_classifier()

    def score(session: Session) -> dict[str, float]:
        if classifier is not None and description is not None:
            return score_by_classifier(classifier, session.scene(), description)
        scene, device = session.scene(), session.device()
        janus = view_classifier.measure(session.prior(), config.prior, config.prompt, scene, device)
        assert janus is not None, "refused above"
        return {"agreement": janus.agreement, "margin": janus.margin}

    return score


def score_by_classifier(classifier: Classifier, scene: Scene, description: Description) -> dict[str, float]:
    """Share of right attributes over twelve views, then the caption's mean log-likelihood."""
    renders = scene_renders(scene, scored_cameras())
    shares = attribute_shares(classifier, renders, description)
    prediction = classifier.predict(renders.over(GREY), renders.cameras)
    return {
        "attributes": sum(shares.values()) / len(shares),
        "likelihood": float(prediction.log_likelihood(description).mean()),
    }
