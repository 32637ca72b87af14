"""Scores of unfinished results, by which best-of-N chooses."""

from sds3d.config import RunConfig
from sds3d.errors import ConfigError
from sds3d.evaluation.classifier import Classifier, load_classifier
from sds3d.evaluation.classifier_scores import attribute_shares
from sds3d.evaluation.renders import GREY, scene_renders, scored_cameras
from sds3d.metrics import view_classifier
from sds3d.priors.embedded.captions import Description, parse
from sds3d.scenes import Scene
from sds3d.sweeps.best_of import Scorer
from sds3d.training.session import Session


def scorer_for(config: RunConfig) -> Scorer:
    """Scores by the classifier for prompts of the procedural world; for others by whether the prior recognizes sides.

    ConfigError for a flat scene, or if the prior tells no sides apart.
    """
    if config.scene.is_flat:
        raise ConfigError(f"a scene of kind {config.scene.name} is flat: it has no sides to rank it by")
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
    prediction = classifier.predict(renders.over(GREY), renders.cameras)
    shares = attribute_shares(classifier, renders, description)
    return {
        "attributes": sum(shares.values()) / len(shares),
        "likelihood": float(prediction.log_likelihood(description).mean()),
    }
