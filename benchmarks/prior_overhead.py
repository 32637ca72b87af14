"""What a whole SDS step costs beside the bare network calls it needs: `python benchmarks/prior_overhead.py`.

A UNet and a VAE of Stable Diffusion 1.5's real shape with random weights (--shape small: a quarter of the width, for
slow machines). A step is the real one: render, VAE encode, two-way classifier-free guidance in one forward, backward
through the VAE and the renderer, optimizer. Bare is the same encode with its backward, and the same forward, alone.
Both alternate in one run. On the CPU both are timed by the processor time of all threads, so that other programs do not
count; on CUDA by the wall clock after a synchronize. The aim is a ratio of at most 1.10.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from sds3d.config.run_config import load_config
from sds3d.priors.hub.families.sd import StableDiffusion
from sds3d.priors.hub.loading import pipeline_of
from sds3d.priors.hub.prior import DiffusersConfig, DiffusersPrior
from sds3d.training.trainer import Trainer

SHAPES = {"sd15": ((320, 640, 1280, 1280), (128, 256, 512, 512)), "small": ((80, 160, 320, 320), (32, 64, 128, 128))}


def make_prior(shape: str, size: int, dtype: torch.dtype, device: torch.device) -> DiffusersPrior:
    """Stable Diffusion 1.5 with random weights and random text embeddings."""
    import diffusers

    widths, vae_widths = SHAPES[shape]
    unet = diffusers.UNet2DConditionModel(
        sample_size=size // 8, block_out_channels=widths, cross_attention_dim=768, attention_head_dim=8,
        norm_num_groups=16 if shape == "small" else 32,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=vae_widths, down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=2,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=32,
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    networks = {"unet": unet.to(device, dtype).eval(), "vae": vae.to(device, dtype).eval().requires_grad_(False)}
    pipeline = pipeline_of(diffusers.StableDiffusionPipeline, {**networks, "scheduler": scheduler})

    def texts(prompts: Any) -> torch.Tensor:
        return torch.randn(len(prompts), 77, 768, generator=torch.Generator().manual_seed(0)).to(device, dtype)

    return DiffusersPrior(DiffusersConfig(model="-", memory="as_set"), StableDiffusion(), pipeline, texts, device)


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def bare(prior: DiffusersPrior, views: int, size: int, device: torch.device) -> None:
    """One encode with its backward, and one forward of the network for two conditions."""
    image = torch.rand(views, 3, size, size, device=device, dtype=prior.dtype, requires_grad=True)
    latent = prior.vae.encode(2.0 * image - 1.0).latent_dist.mean  # type: ignore[union-attr]
    noisy = latent.detach().repeat(2, 1, 1, 1)
    ticks = torch.full((2 * views,), 500, device=device)
    text = torch.zeros(2 * views, 77, 768, device=device, dtype=prior.dtype)
    with torch.no_grad():
        prior.network(noisy, ticks, encoder_hidden_states=text, return_dict=False)
    latent.backward(torch.ones_like(latent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="sd15")
    parser.add_argument("--size", type=int, default=512, help="of the renders and of the VAE's images")
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--scene", default="gaussians")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    prior = make_prior(arguments.shape, arguments.size, dtype, device)
    overrides = {
        "prompt": "a red mug", "scene": arguments.scene, "prior": {"name": "diffusers", "model": "-"},
        "cameras.size": arguments.size, "cameras.views": arguments.views, "steps": 10_000,
    }  # fmt: skip
    config = load_config(overrides=overrides)
    generator = torch.Generator().manual_seed(0)
    scene = config.scene.build(generator).to(device)  # type: ignore[attr-defined]
    trainer = Trainer(config, scene, prior, generator, device)  # type: ignore[arg-type]
    times: dict[str, list[float]] = {"step": [], "bare": []}
    for repeat in range(arguments.repeats + 1):
        for name, act in (
            ("bare", lambda: bare(prior, arguments.views, arguments.size, device)),
            ("step", trainer.advance),
        ):
            begun = clock(device)
            act()
            if repeat:  # the first is a warm-up
                times[name].append(clock(device) - begun)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    ratio = seconds["step"] / seconds["bare"]
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    print(f"{arguments.shape}, {arguments.views} x {arguments.size} px, {arguments.scene}, {where}, {prior.dtype}:")
    print(f"bare {seconds['bare']:.3f} s, step {seconds['step']:.3f} s, ratio {ratio:.3f} (aim: at most 1.10)")
    if arguments.json:
        row = {
            "shape": arguments.shape, "size": arguments.size, "views": arguments.views, "scene": arguments.scene,
            "contestant": device.type, "bare_s": seconds["bare"], "step_s": seconds["step"], "ratio": ratio,
        }  # fmt: skip
        arguments.json.write_text(json.dumps({"machine": where, "rows": [row]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
