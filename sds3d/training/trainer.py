"""The loop: what happens in a step is read here, top to bottom."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sds3d.cameras import sample_cameras
from sds3d.config.run_config import OWN_LOSSES, RunConfig
from sds3d.errors import NumericsError
from sds3d.guidance.base import GuidanceInput, clip_gradient, inject_gradient
from sds3d.guidance.noise import NoiseRequest
from sds3d.options import evaluate
from sds3d.priors.base import MemoryModes, Prior
from sds3d.priors.forward_counter import ForwardCounter
from sds3d.prompts import Prompts
from sds3d.reference_image import REFERENCE_WEIGHTS, ReferenceImage
from sds3d.run.checkpoint import Checkpoint, pack, unpack
from sds3d.run.events import StepDone
from sds3d.run.report import janus_metrics
from sds3d.scenes.background import MAP_LEARNING_RATE, EnvironmentMap, LearnedBackground
from sds3d.scenes.base import HasSurface, ParamGroup, RenderContext, Scene, SplitRendering
from sds3d.scenes.optimizer import build_optimizer, set_learning_rates, take_step
from sds3d.scenes.particles import Particles, scenes_of
from sds3d.scenes.regularizers import weighted_sum
from sds3d.types import RenderOutput, ViewCondition

PARTS = ("prior", "render", "backward", "optimizer")
LOG_EVERY = 10  # steps between losses in the events


class Trainer:
    """A run between two steps. All randomness comes from `generator`, on the CPU whatever the device."""

    def __init__(
        self,
        config: RunConfig,
        scene: Scene | Particles,
        prior: Prior,
        generator: torch.Generator,
        device: torch.device,
        stage: int = 0,
        first: int = 0,
    ) -> None:
        """`first`: the run's steps before this `stage`; `config.steps` are those of the stage."""
        self.stage, self.first = stage, first
        self.step = first  # steps done
        self.config, self.scene, self.prior = config, scene, prior
        self.generator, self.device = generator, device
        self.prompts = self._build_prompts()
        self.state = config.guidance.init(prior, generator)
        noise_state = config.noise.init(prior.latent_shape, generator, config.particles)
        self.noise_state = None if noise_state is None else noise_state.to(device)
        background = config.scene.background
        self.environment_map = None
        if isinstance(background, LearnedBackground):
            self.environment_map = EnvironmentMap(background).to(device)
        self.optimizer = self._build_optimizer()
        image = config.reference_image
        self.reference_image = None if image is None else ReferenceImage(image, device)
        self.rate = 1.0  # factor on all learning rates; less after the run went back, see sds3d.training.recovery
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._counter = ForwardCounter.of(prior)
        self._counted_from = self._counter.forwards  # a prior may have been asked by other runs before

    def run(self) -> Iterator[StepDone]:
        """Step until the end."""
        while self.step < self.end:
            yield self.advance()

    def advance(self) -> StepDone:
        """One step. NumericsError where a loss or gradient is not finite; the scene is then as before the step."""
        config, scene, prior, generator = self.config, self.scene, self.prior, self.generator
        started, progress, views = time.perf_counter(), self._done() / config.steps, config.cameras.views
        set_learning_rates(config.optim, self.optimizer, progress, self.rate)
        cameras = sample_cameras(config.cameras, generator, progress).to(self.device)
        background = config.scene.background.sample(views, generator).to(self.device)
        times = 1 if config.cameras.orthogonal_views else views
        t = config.timesteps.sample(progress, times, generator).expand(views).to(self.device)
        weighted = frozenset(name for name in config.scene.losses if self._weight(name, progress))
        with self._timed("render"):
            out = scene.render(cameras, background, RenderContext(progress, weighted, generator))
            losses = dict(scene.regularizers(out))
            if self.environment_map is not None:
                out = replace(out, rgb=self.environment_map.behind(out, cameras, background, generator))
        request = NoiseRequest(cameras, out, prior.latent_shape, generator)
        noise = config.noise.sample(request, self.noise_state).to(self.device)
        with self._timed("prior"):
            x = prior.encode(out.image())
            told = background if self.environment_map is None else None
            cond, view = self.prompts.at(cameras), ViewCondition(cameras, told)
            inputs = GuidanceInput(x, t, noise, prior, cond, view, progress, generator)
            result = config.guidance.step(inputs, self.state)
        grad, stats = result.grad, dict(result.stats)
        if config.optim.clip_gradient is not None:
            grad, stats["clipped_share"] = clip_gradient(grad, evaluate(config.optim.clip_gradient, progress))
        renders = [out]
        if self.reference_image is not None:
            with self._timed("render"):
                reference, reference_losses = self._compare_with_reference(self.reference_image, progress)
            renders.append(reference)
            losses |= reference_losses
        losses["guidance"] = inject_gradient(x, grad)
        if result.loss is not None:
            losses["guidance_params"] = result.loss
        weights = {name: self._weight(name, progress) for name in losses}
        total = weighted_sum(losses, weights)
        self._check_finite("loss", {name: losses[name] for name, weight in weights.items() if weight}, t)
        with self._timed("backward"):
            if total.requires_grad:  # else all weights are 0: parameters and moments stay as they are
                total.backward()
        self._check_finite("gradient", self._gradients(), t)
        with self._timed("optimizer"):
            take_step(self.optimizer, renders)
            self.optimizer.zero_grad(set_to_none=True)
            scene.after_step(self._done(), config.steps, out, self.optimizer)
        self.step += 1
        shown = {}
        if self.step % LOG_EVERY == 0 or self._done() == config.steps:
            shown = {name: losses[name].item() for name, weight in weights.items() if weight}
            shown |= {name: value.item() for name, value in stats.items()}
        return StepDone(self.step, shown, time.perf_counter() - started)

    @property
    def end(self) -> int:
        """The run's step after which this stage is over."""
        return self.first + self.config.steps

    def go_on_from(self, before: "Trainer") -> None:
        """The run's sums and the factor on its learning rates, from the stage before; its optimizer ends with it."""
        self.seconds |= before.seconds
        self.rate = before.rate
        self._counted_from = before._counted_from
        if self.environment_map is not None and before.environment_map is not None:
            self.environment_map.load_state_dict(before.environment_map.state_dict())
        # a new scene has new parameters, so that what the optimizer held is void
        self.optimizer = self._build_optimizer()

    def finish(self) -> list[str] | None:
        """Finish the surfaces after the last step; why some stay as they are. None where nothing was left to finish."""
        rough = [scene for scene in scenes_of(self.scene) if isinstance(scene, HasSurface) and not scene.is_finished]
        if not rough:
            return None
        problems = [problem for scene in rough if (problem := scene.finish())]
        before, self.optimizer = self.optimizer, self._build_optimizer()
        kept = {parameter for group in self.optimizer.param_groups for parameter in group["params"]}
        self.optimizer.state.update({p: state for p, state in before.state.items() if p in kept})
        return problems

    def _done(self) -> int:
        """Steps of the stage that are done."""
        return self.step - self.first

    def change(self, config: RunConfig) -> None:
        """Go on with other options, those that RunConfig.with_changes allows; state and random numbers stay."""
        self.config = config
        self.prompts = self._build_prompts()

    def _build_optimizer(self) -> torch.optim.Adam:
        groups = list[ParamGroup]()
        if self.environment_map is not None:
            groups = [ParamGroup("background", [self.environment_map.raw_colors], MAP_LEARNING_RATE)]
        return build_optimizer(self.config.optim, self.scene, self.state, groups)

    def _build_prompts(self) -> Prompts:
        config = self.config
        texts = config.prompt, config.negative_prompt
        return Prompts(self.prior, *texts, config.view_prompting, config.prior.reads_views)

    def is_finite(self) -> bool:
        """Whether every parameter of the scene is."""
        parameters = cast(nn.Module, self.scene).parameters()
        return all(bool(torch.isfinite(parameter).all()) for parameter in parameters)

    def reduce_memory(self) -> str | None:
        """Do with less memory from the next step on, at the cost of time; how, or None where there is no way left."""
        prior = self.prior
        if isinstance(prior, MemoryModes) and prior.memory_mode + 1 < len(prior.memory_modes()):
            prior.set_memory_mode(prior.memory_mode + 1)
            return prior.memory_modes()[prior.memory_mode]
        done = [scene.reduce_memory() for scene in scenes_of(self.scene) if isinstance(scene, SplitRendering)]
        return done[0] if done else None

    def checkpoint(self) -> Checkpoint:
        """The run as it stands."""
        tensors = pack(cast(nn.Module, self.scene), self.optimizer, self._states(), self.generator)
        return Checkpoint(self.step, tensors, dict(self.seconds), self.forwards(), self.rate, self.stage)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same configuration, bit for bit on the CPU."""
        unpack(checkpoint.tensors, cast(nn.Module, self.scene), self.optimizer, self._states(), self.generator)
        self.step, self.rate = checkpoint.step, checkpoint.rate
        self.seconds |= checkpoint.seconds
        self._counted_from = self._counter.forwards - checkpoint.forwards

    def janus(self) -> dict[str, Any]:
        """`janus_metrics` of the (first) scene now; its questions to the prior do not count as the run's."""
        counted = self._counter.forwards
        metrics = janus_metrics(self.prior, self.config, scenes_of(self.scene)[0], self.device)
        self._counted_from += self._counter.forwards - counted
        return metrics

    def forwards(self) -> int:
        """Images that the prior has evaluated for the run so far, in all stages and before a resume too."""
        return self._counter.forwards - self._counted_from

    def _states(self) -> dict[str, nn.Module | None]:
        return {"guidance": self.state, "noise": self.noise_state, "background": self.environment_map}

    def _compare_with_reference(
        self, image: ReferenceImage, progress: float
    ) -> tuple[RenderOutput, dict[str, Float[Tensor, ""]]]:
        """The scene from the reference image's camera, unlit, and how it differs from the image."""
        background = self.config.scene.background.sample(1, self.generator).to(self.device)
        context = RenderContext(progress, (), self.generator, normals=image.normal is not None, lit=False)
        out = self.scene.render(image.cameras, background, context)
        return out, image.losses(out, background[0])

    def _weight(self, name: str, progress: float) -> float:
        """The weight of a loss: 1 for the guidance's own, 0 for regularizers the config does not name."""
        default = 1.0 if name in OWN_LOSSES else REFERENCE_WEIGHTS.get(name, 0.0)
        return evaluate(self.config.loss_weights.get(name, default), progress)

    def _gradients(self) -> dict[str, Tensor]:
        """One number per parameter group that is finite exactly when all its gradients are (short of overflow)."""
        return {
            group["name"]: torch.stack([p.grad.abs().sum() for p in group["params"] if p.grad is not None]).sum()
            for group in self.optimizer.param_groups
            if any(p.grad is not None for p in group["params"])
        }

    def _check_finite(self, what: str, values: dict[str, Tensor], t: Float[Tensor, " B"]) -> None:
        finite = [torch.isfinite(value) for value in values.values()]
        if finite and not torch.stack(finite).all():  # one look for all: each waits for the device
            bad = [name for name, value in zip(values, finite, strict=True) if not value]
            self.optimizer.zero_grad(set_to_none=True)
            times = ", ".join(f"{time:.3f}" for time in t.tolist())
            raise NumericsError(
                f"the {what} of {', '.join(bad)} is not finite at step {self.step} (t = {times})",
                hint="lower the learning rates or the guidance scale",
            )

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        """Adds the time inside to the part's sum; on CUDA it waits for the device, or the time would be the queue's."""
        begun = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[part] += time.perf_counter() - begun
