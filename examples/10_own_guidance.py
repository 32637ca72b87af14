"""10. A guidance of your own: one class that reads like its equation, and one line that gives it a name.

Here: SDS whose classifier-free guidance fades over the run, strong while the shape is found and gentle at the end,

    grad = sigma^2 (eps_w - eps),   eps_w = eps_null + s (1 - p / 2) (eps_y - eps_null),   p = progress in [0, 1]
"""

from typing import Annotated, Literal

from pydantic import Field

from sds3d import GUIDANCE, Guidance, GuidanceInput, GuidanceOutput, Session, load_config


class FadingSDS(Guidance[None]):
    """SDS with a guidance scale that falls to its half."""

    name: Literal["fading-sds"] = "fading-sds"
    guidance_scale: Annotated[float, Field(gt=0, le=100)] = 6.0

    def step(self, inputs: GuidanceInput, state: None) -> GuidanceOutput:
        x_t, _, sigma = inputs.diffuse()
        conditions = [inputs.cond.positive, inputs.cond.null]
        eps_y, eps_null = inputs.prior.predict_noise(x_t, inputs.t, conditions, inputs.view)
        scale = self.guidance_scale * (1 - inputs.progress / 2)
        eps_w = eps_null + scale * (eps_y - eps_null)
        return GuidanceOutput(sigma**2 * (eps_w - inputs.noise))


GUIDANCE["fading-sds"] = FadingSDS

config = load_config(
    preset="draft",
    overrides={
        "prompt": "a green cactus",
        "scene": "gaussians",
        "guidance": {"name": "fading-sds", "guidance_scale": 7},
    },
)
session = Session(config, "outputs/own-guidance")
for event in session.run():
    if type(event).__name__ == "Finished":
        print("done by", event.report["parts"]["guidance"], "->", session.out_dir / "sheet.png")
