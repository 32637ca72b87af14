"""Updates docs/guidance.md from the code: `python docs/make_guidance.py`.

The page is written by hand, except for the blocks between `<!-- NAME: generated -->` and `<!-- end -->`. They hold the
docstring and the options of a class, and the table of the methods, whose forwards are counted on the analytic prior.
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
from sds3d.guidance.noise import NOISE
from sds3d.guidance.timesteps import TIMESTEPS
from sds3d.options import Options, Schedule
from sds3d.priors.analytic import AnalyticConfig
from sds3d.priors.forward_counter import ForwardCounter
from sds3d.prompts import Prompts
from sds3d.types import ViewCondition

PAGE = Path(__file__).with_name("guidance.md")
TIMES = (0.1, 0.25, 0.5, 0.98)
USE_FOR = {
    "sds": "the default: cheapest, robust, smooth",
    "sjc": "SDS with the same weight for all times: more detail, more noise",
    "csd": "crisp and colourful at little cost; bound the number of steps",
    "nfsd": "with a real negative prompt, at an ordinary guidance scale",
    "ssd": "without a guidance scale to choose",
    "ism": "less noise between steps, for long runs; two to four times the price",
    "sdi": "sharp results from large priors; the most expensive",
    "vsd": "detail and natural colours from large priors; trains a critic beside the scene",
    "cfd": "another object for every seed; t has to fall over the whole run",
}


def title(method: type[Guidance]) -> str:
    """The docstring's beginning, up to the authors and the year."""
    first = paragraphs(method)[0].replace("\n", " ")
    return re.sub(r"[,;:][^()]*\)$", ")", first[: first.index(")") + 1])


def paragraphs(part: type[Options]) -> list[str]:
    return inspect.cleandoc(part.__doc__ or "").split("\n\n")


def body(part: type[Options]) -> str:
    """The docstring as markdown: paragraphs that hold an equation become code."""
    return "\n\n".join(f"```\n{text}\n```" if is_equation(text) else text for text in paragraphs(part))


def is_equation(paragraph: str) -> bool:
    """Whether every line is one: a short left side and an equals sign, or an indented continuation."""
    lefts = [line.split(" = ")[0] for line in paragraph.split("\n") if not line.startswith("  ")]
    return " = " in paragraph and all(len(left.split()) <= 3 and "," not in left for left in lefts)


def forwards(name: str) -> str:
    """Least to most forwards of a view over TIMES."""
    counts = []
    for t in TIMES:
        prior, cameras = AnalyticConfig(size=8).build("cpu"), orbit(1, size=8)
        method, counter = GUIDANCE[name](), ForwardCounter.of(prior)
        state, x = method.init(prior, torch.Generator()), torch.zeros(1, 3, 8, 8)
        cond, view = Prompts(prior, "red").at(cameras), ViewCondition(cameras)
        method.step(GuidanceInput(x, torch.tensor([t]), torch.ones_like(x), prior, cond, view), state)
        counts.append(counter.forwards)
    text = str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    return text if state is None else f"{text}, and 2 of its critic"


def option(name: str, field: FieldInfo) -> str:
    """One row of a table of options."""
    limits: dict[str, Any] = {}
    for rule in field.metadata:
        limits |= {key: getattr(rule, key) for key in ("ge", "gt", "le", "lt") if getattr(rule, key, None) is not None}
    low = f"[{limits['ge']:g}" if "ge" in limits else f"({limits['gt']:g}" if "gt" in limits else ""
    high = f"{limits['le']:g}]" if "le" in limits else f"{limits['lt']:g})" if "lt" in limits else ""
    if limits.get("lt") == 2**63:
        high = "2^63)"
    description = (field.description or "").replace("|", "\\|")
    default = field.default
    if isinstance(default, Schedule):
        default = f"{default.start:g} to {default.end:g}, from {default.begin_at:g} to {default.end_at:g} of the run"
    return f"| `{name}` | {default} | {f'{low}, {high}' if low and high else ''} | {description} |"


def described(part: type[Options]) -> str:
    """Docstring, defaults on other axes, and options of a method, a kind of noise or a rule for times."""
    texts = [body(part)]
    overrides = ", ".join(f"`{axis}={name}`" for axis, name in getattr(part, "default_overrides", {}).items())
    if overrides:
        texts.append(f"Defaults on other axes: {overrides}.")
    options = [option(key, field) for key, field in part.model_fields.items() if key != "name"]
    if options:
        texts.append("\n".join(["| option | default | range | |", "| --- | --- | --- | --- |", *options]))
    return "\n\n".join(texts)


def blocks() -> dict[str, str]:
    """The generated parts of the page by name."""
    rows = ["| name | method | forwards | use it for |", "| --- | --- | --- | --- |"]
    rows += [
        f"| [`{name}`](#{name}) | {title(method)} | {forwards(name)} | {USE_FOR[name]} |"
        for name, method in GUIDANCE.items()
    ]
    with_cfg = ", ".join(f"`{name}`" for name, method in GUIDANCE.items() if method.uses_cfg)
    rows += ["", f"Classifier-free guidance, and so Perp-Neg (`view_prompting.mode=perp_neg`), is part of {with_cfg}."]
    parts: dict[str, type[Options]] = {**GUIDANCE, **NOISE, **TIMESTEPS}
    return {"methods": "\n".join(rows), **{name: described(part) for name, part in parts.items()}}


def page() -> str:
    """The whole of docs/guidance.md, with its generated blocks made anew."""
    text = PAGE.read_text(encoding="utf-8")
    for name, block in blocks().items():
        start, end = f"<!-- {name}: generated -->\n", "\n<!-- end -->"
        if text.count(start) != 1:
            raise SystemExit(f"{PAGE} needs one block {start!r}, closed by {end!r}: write its section around it")
        before, rest = text.split(start)
        text = before + start + block + rest[rest.index(end) :]
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
