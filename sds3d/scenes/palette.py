"""The few flat colours that a surface has, found in colours that are still soft and stained."""

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial import cKDTree
from torch import Tensor

MOST = 8  # colours of a palette
AROUND = 24  # points around a place that tell whether it lies in a flat part
FLAT = 0.04  # standard deviation of their colours, in the channel where it is largest
NEAR = 0.2  # sRGB distance from which a colour is another one
LEAST, LEAST_FLAT = 0.002, 0.015  # shares of the points that make one of their own: no mixture; a mixture, but flat
DARKEST, BRIGHTEST, PALEST = 0.75, 1.15, 0.15  # shades of one colour: light that is still in it, white on top of it
SHADES = (DARKEST, 0.9, 1.0, BRIGHTEST)
THIN = 0.04  # world units: a quarter of the width of the widest soft band between two parts
TOUCHED = 0.2  # of a band's places: those that are next to one of its two colours
TRIED = 200  # values that may be the commonest


def find_palette(points: Float[Tensor, "P 3"], colors: Float[Tensor, "P 3"]) -> Float[Tensor, "K 3"]:
    """The colours, at most MOST, of which those at points of a surface are soft and stained versions; sRGB.

    From the commonest one on, the colour x is added that is farthest from all mixtures of the colours c_i so far,

        d(x) = min_ijst |x - s ((1 - t) c_i + t c_j)|,   0 <= t <= 1,   s in SHADES,

    while a share LEAST of the points is farther than NEAR; then of a share LEAST_FLAT of points whose surroundings are
    flat, and that are so far from the c_i themselves. So the band between two parts, soft as it is, adds no colour, and
    what is too small to have a flat middle, such as an eye, does. Each colour is the mean over flat places close to it.
    A mixture that is flat but only a band between its two colours is none, see `_is_band`.
    """
    places = points.detach().cpu().numpy()
    values = colors.detach().cpu().float()
    _, around = cKDTree(places).query(places, min(AROUND, len(places)))
    spread = values[torch.from_numpy(around)].std(dim=1, correction=0).amax(dim=1)
    flat = values[spread <= max(FLAT, float(spread.quantile(0.1)))]
    palette = _commonest(flat, flat)
    for of, distance, least in ((values, _to_mixtures, LEAST), (flat, to_shades, LEAST_FLAT)):
        while len(palette) < MOST:
            apart = distance(of, palette)
            apart = apart if apart.dim() == 1 else apart.amin(dim=1)
            limit = apart.topk(max(1, round(least * len(values)))).values[-1]
            if limit < NEAR:
                break
            palette = torch.cat([palette, _commonest(of[apart >= limit], flat)])
    while len(palette) > 2:
        band = next((one for one in range(len(palette)) if _is_band(one, palette, places, values)), None)
        if band is None:
            break
        palette = torch.cat([palette[:band], palette[band + 1 :]])
    return palette.to(colors)


def _is_band(
    one: int, palette: Float[Tensor, "K 3"], places: Float[ndarray, "P 3"], values: Float[Tensor, "P 3"]
) -> bool:
    """Whether a colour lies between two others, in colour as on the surface, where it is nowhere wide.

    Its places are in the mean at most THIN from the next one of another; each of the two is next to TOUCHED of them.
    """
    nearest = to_shades(values, palette).argmin(dim=1).numpy()
    own, others = nearest == one, np.flatnonzero(nearest != one)
    if not own.any() or not len(others):
        return not own.any()
    depth, next_ = cKDTree(places[others]).query(places[own])
    if depth.mean() > THIN:
        return False
    beside = np.bincount(nearest[others][next_], minlength=len(palette)) / own.sum()
    around = [other for other in np.flatnonzero(beside > TOUCHED).tolist() if other != one]
    pairs = torch.combinations(torch.tensor(around)).tolist() if len(around) > 1 else []
    return any(float(_to_mixtures(palette[one][None], palette[pair])) < NEAR for pair in pairs)


def to_shades(values: Float[Tensor, "P 3"], palette: Float[Tensor, "K 3"]) -> Float[Tensor, "P K"]:
    """Distance of each value to the shades of each colour.

    min_su |x - s c - u|,   DARKEST <= s <= BRIGHTEST,   u = 0 or PALEST in all channels
    """
    apart = []
    for rest in (values, values - PALEST):
        shade = (rest @ palette.T / palette.square().sum(dim=1).clamp_min(1e-6)).clamp(DARKEST, BRIGHTEST)
        apart.append((rest[:, None] - shade[..., None] * palette).norm(dim=-1))
    return torch.minimum(*apart)


def _commonest(values: Float[Tensor, "P 3"], flat: Float[Tensor, "Q 3"]) -> Float[Tensor, "1 3"]:
    """The value that has most others near, as the mean over the flat ones that are near to it, if there are any."""
    tried = values[:: max(1, len(values) // TRIED)]
    near = torch.cdist(values, tried) < NEAR / 2
    found = values[near[:, near.sum(dim=0).argmax()]].mean(dim=0, keepdim=True)
    close = flat[torch.cdist(flat, found)[:, 0] < NEAR / 2]
    return close.mean(dim=0, keepdim=True) if len(close) else found


def _to_mixtures(values: Float[Tensor, "P 3"], palette: Float[Tensor, "K 3"]) -> Float[Tensor, " P"]:
    """Distance to the segments between shades of any two colours."""
    least = to_shades(values, palette).amin(dim=1)
    for first, second in torch.combinations(torch.arange(len(palette))).tolist():
        for shade in SHADES:
            start, line = shade * palette[first], shade * (palette[second] - palette[first])
            along = ((values - start) @ line / line.square().sum()).clamp(0, 1)
            least = torch.minimum(least, (values - start - along[:, None] * line).norm(dim=1))
    return least
