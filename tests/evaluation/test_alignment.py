"""Silhouettes against the truth, up to scale and yaw."""

import torch

from sds3d.evaluation.ground_truth import SIZE, VIEWS, align, draw_truths, silhouette_cameras
from sds3d.priors.embedded.captions import parse
from sds3d.priors.embedded.render import render_solids


def masks_of(solids, turn_deg=0.0, scale=1.0):
    """Silhouettes of the object turned counter-clockwise by turn_deg."""
    scaled = [solid.moved(scale, (0.0, 0.0, 0.0)) for solid in solids]
    return render_solids(scaled, silhouette_cameras(-turn_deg), samples=1)[..., 3] > 0.5


def test_the_truth_covers_itself():
    truths = draw_truths(parse("a blue chair"))
    found = align(masks_of(truths[5]), truths)
    assert found.silhouette_iou > 0.99
    assert found.draw == 5
    assert found.yaw_deg == 0.0
    assert found.scales[found.draw] == 1.0


def test_turn_and_scale_are_found():
    truths = draw_truths(parse("a blue chair"))
    found = align(masks_of(truths[2], turn_deg=90.0, scale=0.75), truths)
    assert found.silhouette_iou > 0.9
    assert found.yaw_deg == 90.0
    assert abs(found.scales[found.draw] - 0.75) < 0.06


def test_another_kind_and_an_empty_scene_score_low():
    truths = draw_truths(parse("a blue chair"))
    assert align(masks_of(draw_truths(parse("a blue sphere"))[0]), truths).silhouette_iou < 0.7
    nothing = align(torch.zeros(VIEWS, SIZE, SIZE, dtype=torch.bool), truths)
    assert nothing.silhouette_iou == 0.0


def test_what_looks_alike_from_all_sides_is_not_said_to_be_turned():
    truths = draw_truths(parse("a red cone"))
    assert align(masks_of(truths[0], turn_deg=45.0), truths).yaw_deg == 0.0
