"""Writes docs/guidance.md from the guidances themselves: `python docs/make_guidance.py`.

Equations, papers and options are those of the docstrings and fields; forwards are counted on the analytic prior. What
no code can say, when to use which, stands in WHEN.
"""

import inspect
import re
from pathlib import Path
from typing import Any

import torch
from pydantic.fields import FieldInfo

from sds3d.cameras import orbit
from sds3d.guidance import GUIDANCE, Guidance
from sds3d.guidance.base import GuidanceInput
from sds3d.priors.analytic import AnalyticConfig
from sds3d.priors.forward_counter import ForwardCounter
from sds3d.prompts import Prompts
from sds3d.types import ViewCondition

PAGE = Path(__file__).with_name("guidance.md")
TIMES = (0.1, 0.25, 0.5, 0.98)
WHEN = {
    "sds": "the default: cheapest, robust, smooth",
    "sjc": "SDS that gives all times the same weight: more detail, more noise",
    "csd": "crisp and colourful at little cost; wants a bounded number of steps",
    "nfsd": "with a real negative prompt, at an ordinary guidance scale",
    "ssd": "without a guidance scale to choose",
    "ism": "less noise between steps, for long runs; two to four times the price",
    "sdi": "sharp results from large priors; the dearest",
    "vsd": "detail and natural colours from large priors; trains a critic beside the scene",
    "cfd": "another object for every seed; wants the whole run to see t fall",
}
HEAD = """# Guidance

How each method turns the prior's predictions into a gradient on the rendered views. This page is written by
`python docs/make_guidance.py` from the classes in `sds3d/guidance/`. Notation: x is a view in the prior's space,
x_t = alpha x + sigma eps, and eps_y, eps_null, eps_neg are the noise that the prior predicts at x_t for the prompt, the
empty text and the negative prompt. There is one convention for classifier-free guidance:
eps_w = eps_base + s (eps_y - eps_base), so s = 1 is the plain prediction.

Shared by all of them: `optim.clip_gradient` bounds the elements of the gradient, `weighting` is w(t), and the axes
`noise`, `timesteps` and `view_prompting` are chosen beside the method. Perp-Neg (`view_prompting.mode=perp_neg`) works with
those that have classifier-free guidance: {guides}.

Several scenes at once, `particles=4`, work with all of them and share the views of each step: VSD trains one critic
on all, the others make so many scenes independently. On exact mixtures 32 particles of VSD spread over the modes and
those of SDS do not (`tests/e2e/test_particles.py`). A few whole pictures are another matter: with the prior that ships,
four of "a mug" (`--scene image --steps 150 --set particles=4`, one seed) were as alike under VSD as under SDS, and
noisier; those of CFD, each with a noise of its own, differed most.

Not here:

- LMC-SDS (learned manifold corrective), because the published text was not at hand and nothing can be called faithful
  to it without.
- DreamSampler (Kim et al. 2024, arXiv 2403.11415) as a method of its own. It is one run of a sampler, x_s = alpha_s x +
  sigma_s eps', in which x = g(theta) is fitted to the predicted clean image x0_hat, with a regularizer, at every time;
  eps' mixes the noise predicted at the time before with fresh noise. The part that any differentiable scene can have is
  here: the fit is `guidance=sds guidance.weighting=sigma_over_alpha` (its gradient is x - x0_hat), the single falling
  time `timesteps=descending`, the regularizers `loss_weights`, and eps' all fresh is `noise=fresh`. Predicted noise can
  be carried on only for a view that is seen again at the next time: with cameras that are drawn anew there is none,
  the published code has single images only, and the paper's text on other generators was not at hand. Noise that is
  kept over the run and belongs to the surface, so that the fit becomes the sampler's own step, is what `cfd` has.

Forwards are those of the prior, for one view and one step, at the default options and without a negative prompt;
a range is over t from 0.1 to 0.98.

| name | method | forwards | use it for |
| --- | --- | --- | --- |
"""


def title(method: type[Guidance]) -> str:
    """The docstring's beginning, up to where the paper's brackets close."""
    first = paragraphs(method)[0].replace("\n", " ")
    return re.sub(r"(, equations? [0-9 and]+)?[,;:][^()]*\)$", ")", first[: first.index(")") + 1])


def paragraphs(method: type[Guidance]) -> list[str]:
    return inspect.cleandoc(method.__doc__ or "").split("\n\n")


def body(method: type[Guidance]) -> str:
    """The docstring as markdown: paragraphs that hold an equation become code."""
    parts = paragraphs(method)
    return "\n\n".join(f"```\n{part}\n```" if is_equation(part) else part for part in parts)


def is_equation(paragraph: str) -> bool:
    """Whether every line is one: a short left side and an equals sign, or an indented continuation."""
    lefts = [line.split(" = ")[0] for line in paragraph.split("\n") if not line.startswith("  ")]
    return " = " in paragraph and all(len(left.split()) <= 3 and "," not in left for left in lefts)


def forwards(name: str) -> str:
    """Least to most forwards of a view over TIMES."""
    found = []
    for t in TIMES:
        prior, cameras = AnalyticConfig(size=8).build("cpu"), orbit(1, size=8)
        method, counter = GUIDANCE[name](), ForwardCounter.of(prior)
        state, x = method.init(prior, torch.Generator()), torch.zeros(1, 3, 8, 8)
        cond, view = Prompts(prior, "red").at(cameras), ViewCondition(cameras)
        method.step(GuidanceInput(x, torch.tensor([t]), torch.ones_like(x), prior, cond, view), state)
        found.append(counter.forwards)
    asked = str(min(found)) if min(found) == max(found) else f"{min(found)} to {max(found)}"
    return asked if state is None else f"{asked}, and 2 of its critic"


def option(name: str, field: FieldInfo) -> str:
    """One row of a method's options."""
    limits: dict[str, Any] = {}
    for rule in field.metadata:
        limits |= {key: getattr(rule, key) for key in ("ge", "gt", "le", "lt") if getattr(rule, key, None) is not None}
    low = f"[{limits['ge']:g}" if "ge" in limits else f"({limits['gt']:g}" if "gt" in limits else ""
    high = f"{limits['le']:g}]" if "le" in limits else f"{limits['lt']:g})" if "lt" in limits else ""
    default = field.default.model_dump() if hasattr(field.default, "model_dump") else field.default
    return f"| `{name}` | {default} | {f'{low}, {high}' if low and high else ''} | {field.description or ''} |"


def page() -> str:
    """The whole of docs/guidance.md."""
    rows, sections = [], []
    for name, method in GUIDANCE.items():
        rows.append(f"| [`{name}`](#{name}) | {title(method)} | {forwards(name)} | {WHEN[name]} |")
        options = [option(key, field) for key, field in method.model_fields.items() if key != "name"]
        brings = ", ".join(f"`{axis}={part}`" for axis, part in method.default_overrides.items())
        default_overrides = f"\n\nBrings {brings} where nothing else is said." if brings else ""
        sections.append(
            f"## {name}\n\n{body(method)}{default_overrides}\n\n| option | default | range | |\n| --- | --- | --- | --- |\n"
            + "\n".join(options)
        )
    guides = ", ".join(f"`{name}`" for name, method in GUIDANCE.items() if method.uses_cfg)
    return HEAD.format(guides=guides) + "\n".join(rows) + "\n\n" + "\n\n".join(sections) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
