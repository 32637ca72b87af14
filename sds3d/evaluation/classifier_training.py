"""Trains the classifier on the embedded prior's training renders, and on combinations that the prior never sees.

The renders are augmented (background, blur, noise, brightness, shift), because the images to classify later, renders of
splats and samples of a small model, are softer than the truth.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sds3d.evaluation.classifier import (
    ATTRIBUTES,
    LABELS,
    Classifier,
    ClassifierNetwork,
    attributes_of,
    camera_vector,
    view_labels,
)
from sds3d.evaluation.classifier_scores import has_front
from sds3d.evaluation.renders import GREY
from sds3d.priors.embedded.captions import Description, parse
from sds3d.priors.embedded.data import Batch, angle_cameras, chance_of, make_batch, random_backgrounds
from sds3d.priors.embedded.render import over


def train_classifier(
    network: ClassifierNetwork, steps: int, batch: int = 96, lr: float = 2e-3, seed: int = 0
) -> Iterator[float]:
    """Yields the loss of each step, under a one-cycle learning rate. A sixth of a batch is held-out combinations."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    rest = batch // 6
    seen = batch - rest
    network.train()
    for step in range(steps):
        parts = [
            make_batch(seed, step * seen, seen, chance=chance_of),
            make_batch(seed, step * rest, rest, held_out=True),
        ]
        joined = Batch.joined(parts)
        loss = classifier_loss(network, joined, augmented(joined.rgba, generator))
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        yield float(loss.detach())


def carry_over(network: ClassifierNetwork, released: dict[str, Tensor]) -> None:
    """Starts from released weights. Inputs that a layer did not have then are its last, and start at random."""
    state = network.state_dict()
    for name, value in released.items():
        if state[name].ndim == 2:
            state[name][:, : value.shape[1]] = value
        else:
            state[name].copy_(value)
    network.load_state_dict(state)


def classifier_loss(network: ClassifierNetwork, batch: Batch, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
    """Cross entropy of every attribute, and of the side for single objects that have a front."""
    descriptions = [_description(caption) for caption in batch.captions]
    labels = [attributes_of(description) for description in descriptions]
    azimuth, elevation, _ = batch.angles.unbind(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=torch.backends.cpu.get_cpu_capability() == "AVX512"):
        heads, views = network(images, camera_vector(azimuth, elevation))
    loss = images.new_zeros(())
    for name in ATTRIBUTES:
        target = torch.tensor([LABELS[name].index(row[name]) for row in labels])
        loss = loss + functional.cross_entropy(heads[name].float(), target)
    fronted = torch.tensor([has_front(description) for description in descriptions])
    if fronted.any():
        loss = loss + functional.cross_entropy(views.float()[fronted], view_labels(azimuth)[fronted])
    return loss


def augmented(rgba: Float[Tensor, "B H W 4"], generator: torch.Generator) -> Float[Tensor, "B 3 H W"]:
    """Random backgrounds; half of the images blurred, half brightened or darkened, all noisy and slightly shifted."""
    count = len(rgba)
    down, right = torch.randint(-3, 4, (2,), generator=generator).tolist()
    shifted = torch.roll(rgba, (down, right), dims=(1, 2))  # no object touches the border
    images = over(shifted, random_backgrounds(count, generator)).permute(0, 3, 1, 2)
    soft = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    blur = torch.rand(count, 1, 1, 1, generator=generator)
    images = torch.lerp(images, soft, torch.where(blur < 0.5, 2.0 * blur, 0.0))
    light = 1.0 + 0.15 * torch.randn(count, 1, 1, 1, generator=generator)
    images = torch.where(torch.rand(count, 1, 1, 1, generator=generator) < 0.5, images * light, images)
    noise = 0.05 * torch.rand(count, 1, 1, 1, generator=generator)
    return (images + noise * torch.randn(images.shape, generator=generator)).clamp(0.0, 1.0)


def measure(classifier: Classifier, batch: Batch, views: int) -> dict[str, float]:
    """Accuracy on true renders over grey, for each attribute that the captions mention and for the side.

    The batch has `views` of each object.
    """
    right: dict[str, list[float]] = {}
    for first in range(0, len(batch.captions), views):
        scene = slice(first, first + views)
        description = _description(batch.captions[first])
        images = over(batch.rgba[scene], torch.full((views, 3), GREY)).permute(0, 3, 1, 2)
        cameras = angle_cameras(batch.angles[scene])
        prediction = classifier.predict(images, cameras)
        correct = prediction.correct(description)
        correct["all"] = torch.stack(list(correct.values())).all(0)
        if has_front(description):
            correct["view"] = prediction.views.argmax(1) == view_labels(cameras.azimuth)
        for name, values in correct.items():
            right.setdefault(name, []).extend(values.float().tolist())
    return {name: round(sum(values) / len(values), 4) for name, values in right.items()}


def _description(caption: str) -> Description:
    description = parse(caption)
    assert description is not None, caption
    return description
