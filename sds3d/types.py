"""Data that crosses package borders. Axes: B views, H W image, h w prior space, C channels (see architecture)."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

PER_VIEW = ("camera_to_world", "intrinsics", "azimuth", "elevation", "distance")  # the tensors of Cameras


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras. World: right-handed, +z up, object inside the unit ball."""

    camera_to_world: Float[Tensor, "B 4 4"]  # OpenCV axes: +x right, +y down, +z forward
    intrinsics: Float[Tensor, "B 3 3"]  # pixels; the centre of pixel (0, 0) is (0.5, 0.5)
    azimuth: Float[Tensor, "B"]  # radians; 0 is the front (+x), counter-clockwise from above
    elevation: Float[Tensor, "B"]  # radians
    distance: Float[Tensor, "B"]  # world units from the origin
    height: int
    width: int

    def __len__(self) -> int:
        return self.camera_to_world.shape[0]

    def to(self, device: torch.device | str) -> "Cameras":
        """The same cameras with their tensors on `device`."""
        return replace(self, **{name: getattr(self, name).to(device) for name in PER_VIEW})

    def select(self, views: Int[Tensor, "V"]) -> "Cameras":
        """Some of the cameras, by their places in the batch."""
        return replace(self, **{name: getattr(self, name)[views] for name in PER_VIEW})


@dataclass(frozen=True)
class RenderOutput:
    """What a scene returns for a batch of cameras; channels last."""

    rgb: Float[Tensor, "B H W 3"]  # [0, 1], over the background; sRGB as the priors expect
    opacity: Float[Tensor, "B H W 1"]  # accumulated coverage, [0, 1]
    depth: Float[Tensor, "B H W 1"]  # world units along the camera's z, weighted by opacity
    normal: Float[Tensor, "B H W 3"] | None = None  # world space, unit length
    aux: object = None  # private to the scene that made it
    particle: Int[Tensor, "B"] | None = None  # which of a run's scenes each view shows, from 0; None where there is one

    def image(self) -> Float[Tensor, "B 3 H W"]:
        """The colours channels first, as priors want them: the only place where the layout changes."""
        return self.rgb.permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class ViewCondition:
    """What a view-aware prior may know about the renders it judges; text-only priors ignore it.

    `background` is the solid colour each view was composited over, [0, 1]. A prior that is told the background need
    not guess it, so it does not push fog of its favourite colour into the scene.
    """

    cameras: Cameras
    background: Float[Tensor, "B 3"] | None = None


@dataclass(frozen=True)
class Conditioning:
    """Text embeddings for one batch of views, one row per view.

    The null condition is the empty text and never the negative prompt; `negative` is None when the user gave none.
    """

    positive: Float[Tensor, "B N D"]  # the prompt, with view words where the prior reads them
    plain: Float[Tensor, "B N D"]  # the prompt as written
    null: Float[Tensor, "B N D"]
    negative: Float[Tensor, "B N D"] | None = None
    # Perp-Neg: what a view is not, say a front seen from behind, each with one weight <= 0 for each view
    against: tuple[tuple[Float[Tensor, "B N D"], Float[Tensor, "B"]], ...] = ()
