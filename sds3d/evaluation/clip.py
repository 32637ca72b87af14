"""CLIP score, for prompts and priors beyond the procedural world; from a local folder only."""

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from sds3d.errors import ConfigError, first_line
from sds3d.prompts import VIEW_WORDS

NEEDED = ("config.json", "preprocessor_config.json")


class Clip:
    """A CLIP model of transformers in a local folder, as `save_pretrained` writes it. Nothing is downloaded."""

    def __init__(self, folder: Path) -> None:
        """ConfigError, naming the folder, if it holds no CLIP model with its tokenizer and image settings."""
        from transformers import AutoTokenizer, CLIPModel  # here: it takes seconds, and few evaluations need it

        missing = [name for name in NEEDED if not (folder / name).is_file()]
        if missing:
            raise ConfigError(f"--clip {folder} is no folder of a CLIP model: {missing[0]} is missing there")
        try:
            settings = json.loads((folder / "preprocessor_config.json").read_text())
            self.mean, self.std = (torch.tensor(settings[k]).view(3, 1, 1) for k in ("image_mean", "image_std"))
            self.model: Any = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers raises many types; each means that the folder cannot be used
            raise ConfigError(f"cannot read a CLIP model from --clip {folder}: {first_line(error)}") from error
        self.size = int(self.model.config.vision_config.image_size)

    def score(self, images: Float[Tensor, "B 3 H W"], prompt: str) -> float:
        """100 cos(image, text), mean over images in [0, 1] (Hessel et al. 2021, without their factor and clipping)."""
        return float(100.0 * self._cosines(images, [prompt]).mean())

    def side_agreement(self, images: Float[Tensor, "B 3 H W"], prompt: str, true: Int[Tensor, " B"]) -> float:
        """Share of images whose nearest text of "PROMPT, front view", side, back is that of `true` (0, 1, 2)."""
        cosines = self._cosines(images, [f"{prompt}, {side}" for side in VIEW_WORDS[:3]])
        return float((cosines.argmax(dim=1) == true.to(cosines.device)).float().mean())

    @torch.no_grad()
    def _cosines(self, images: Float[Tensor, "B 3 H W"], texts: list[str]) -> Float[Tensor, "B T"]:
        sides = (self.size, self.size)
        pixels = functional.interpolate(images, size=sides, mode="bicubic", antialias=True).clamp(0, 1)
        longest = int(self.model.config.text_config.max_position_embeddings)
        tokens = self.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=longest)
        output = self.model(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=(pixels - self.mean) / self.std,
        )
        return functional.cosine_similarity(output.image_embeds[:, None], output.text_embeds[None], dim=2)
