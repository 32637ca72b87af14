"""Data that several packages share. Axes: B views, H W image, h w prior space, C channels, N tokens, D features."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

Latents = Float[Tensor, "B C h w"]  # one for each view, in the space of the prior
PerView = Float[Tensor, " B"]  # one number for each view
Factor = Float[Tensor, "B 1 1 1"]  # the same, in a shape to multiply latents by
ViewColors = Float[Tensor, "B 3"]  # one colour for each view
PerPixel = Float[Tensor, "B H W 1"]
Scalar = Float[Tensor, ""]


class Material(NamedTuple):
    """How a surface reflects light, in glTF's metallic-roughness model; by default as nothing is known of it."""

    roughness: float = 0.8  # in [0, 1]; the microfacets' alpha is its square
    metallic: float = 0.0  # 0 or 1


PER_VIEW = ("camera_to_world", "intrinsics", "azimuth", "elevation", "distance")  # the tensors of Cameras


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras. World: right-handed, +z up, object inside the unit ball."""

    camera_to_world: Float[Tensor, "B 4 4"]  # OpenCV axes: +x right, +y down, +z forward
    intrinsics: Float[Tensor, "B 3 3"]  # pixels; the centre of pixel (0, 0) is (0.5, 0.5)
    azimuth: Float[Tensor, " B"]  # radians; 0 is the front (+x), counter-clockwise from above
    elevation: Float[Tensor, " B"]  # radians
    distance: Float[Tensor, " B"]  # world units from the origin
    height: int
    width: int

    def __len__(self) -> int:
        return self.camera_to_world.shape[0]

    def to(self, device: torch.device | str) -> "Cameras":
        """The same cameras with their tensors on `device`, in one copy: each would wait for it."""
        tensors = [getattr(self, name) for name in PER_VIEW]
        rows = [tensor.flatten(1) if tensor.dim() > 1 else tensor[:, None] for tensor in tensors]
        parts = torch.cat(rows, dim=1).to(device).split([row.shape[1] for row in rows], dim=1)
        moved = [part.reshape(tensor.shape).contiguous() for part, tensor in zip(parts, tensors, strict=True)]
        return replace(self, **dict(zip(PER_VIEW, moved, strict=True)))

    def select(self, views: Int[Tensor, " V"]) -> "Cameras":
        """The cameras at these indices of the batch."""
        return replace(self, **{name: getattr(self, name)[views] for name in PER_VIEW})


@dataclass(frozen=True)
class RenderOutput:
    """What a scene renders for a batch of cameras; channels last.

    w_i are the compositing weights of what a pixel sees (samples of a ray, or splats), front to back.
    """

    rgb: Float[Tensor, "B H W 3"]  # [0, 1], over the background; sRGB as the priors expect
    opacity: PerPixel  # sum_i w_i, in [0, 1]
    depth: PerPixel  # sum_i w_i z_i, z in world units along the camera's z axis: NOT the mean depth
    normal: Float[Tensor, "B H W 3"] | None = None  # world space, unit length, 0 where nothing was hit
    aux: object = None  # private to the scene that made it
    particle: Int[Tensor, " B"] | None = None  # which of a run's scenes each view shows, from 0; None: one scene

    def mean_depth(self) -> PerPixel:
        """sum_i w_i z_i / sum_i w_i in world units; infinite where the opacity is at most 1e-3. Differentiable."""
        return torch.where(self.opacity > 1e-3, self.depth / self.opacity.clamp_min(1e-3), torch.inf)

    def image(self) -> Float[Tensor, "B 3 H W"]:
        """The colours, channels first, as priors take them."""
        return self.rgb.permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class ViewCondition:
    """What a view-aware prior may know about the renders it is given; text-only priors ignore it.

    `background` is the solid colour that each view was composited over, [0, 1]. A prior that knows the background does
    not have to guess it, so it does not push haze of its favourite colour into the scene.
    """

    cameras: Cameras
    background: ViewColors | None = None


@dataclass(frozen=True)
class Conditioning:
    """Text embeddings for one batch of views, one row per view.

    The null condition is the empty text and never the negative prompt; `negative` is None when the user gave none.
    """

    positive: Float[Tensor, "B N D"]  # the prompt, with view words where the prior reads them
    plain: Float[Tensor, "B N D"]  # the prompt as written
    null: Float[Tensor, "B N D"]
    negative: Float[Tensor, "B N D"] | None = None
    # Perp-Neg: text for the sides that a view does not show, with one weight <= 0 per view
    against: tuple[tuple[Float[Tensor, "B N D"], Float[Tensor, " B"]], ...] = ()
