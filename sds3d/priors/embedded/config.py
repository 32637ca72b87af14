"""Options of the embedded prior."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from sds3d.options import LocalFile
from sds3d.priors.base import PriorConfig
from sds3d.priors.embedded.prior import EmbeddedPrior, known_things, load_embedded
from sds3d.priors.embedded.shading import AMBIENT, DIFFUSE, LIGHT, LOOKS
from sds3d.priors.embedded.words import WORDS, drawable, material_of, nearest_words, words_of
from sds3d.types import Material


class EmbeddedConfig(PriorConfig):
    """The small prior that ships with sds3d.

    Its default t_min of 0.5 replaces the usual 0.02: in images of 64 pixels, noise below t = 0.5 hides no thin part, so
    the prior keeps whatever silhouette it sees, and a mug that has lost its handle stays without one. By default 200
    steps of splats find the shape, and 250 of a mesh that takes them over make it crisp, as the prior's pictures are.
    """

    name: Literal["embedded"] = "embedded"
    reads_cameras: ClassVar[bool] = True
    default_overrides: ClassVar[Mapping[str, Any]] = {
        "timesteps": {"name": "uniform", "t_min": 0.5},
        "steps": 450,
        "stages": [{"begin_at": 4 / 9, "options": {"scene": {"name": "mesh"}}}],
    }
    light: ClassVar[Mapping[str, Any] | None] = {"direction": LIGHT, "ambient": AMBIENT, "diffuse": DIFFUSE}
    flat_colors: ClassVar[bool] = True
    simple_shapes: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "a red mug",
        "a blue car",
        "a green cactus",
        "a yellow duck",
        "a red cone on a blue cube",
        "a striped red and white mug",
    )
    weights: Annotated[str | None, LocalFile(), Field(description="folder with other weights of the same networks")] = (
        None
    )

    anything: Annotated[
        bool, Field(description="take prompts for things it does not know, by their other words alone")
    ] = False

    def build(self, device: torch.device | str) -> EmbeddedPrior:
        """Load the weights."""
        return load_embedded(self.weights, device)

    def material(self, prompt: str) -> Material:
        """By the words; the default for things of different materials: nobody knows which is where on the mesh."""
        named = material_of(prompt)
        return Material() if named is None else LOOKS[named]

    def knows(self) -> str:
        """Colours, things, and how to combine them."""
        return known_things(self.weights)

    def unknown_words(self, text: str) -> list[str]:
        """For the weights that ship; others may have learned other words, so for them it is empty."""
        return [word for word in dict.fromkeys(words_of(text)) if word not in WORDS] if self.weights is None else []

    def drawable(self, prompt: str) -> list[str] | None:
        """By its kinds of things; of other weights they are not known."""
        return None if self.anything or self.weights is not None else drawable(prompt)

    def nearest(self, word: str) -> list[str]:
        """Known words of similar spelling, else things of the same group."""
        return nearest_words(word)
