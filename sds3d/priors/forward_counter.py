"""How often a prior is asked: the cost that guidances are compared by, whatever the machine."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sds3d.priors.base import Prior
from sds3d.types import ViewCondition


class ForwardCounter:
    """Counts forwards of a prior: one for each view and condition in each call of `predict_noise`.

    It takes the place of the method on this one prior, so that the prior stays what it is to everybody who asks for
    its protocols. Asking for the counter of a prior again gives the same one.
    """

    def __init__(self, prior: Prior) -> None:
        self.forwards = 0
        self._ask = prior.predict_noise

    def __call__(
        self, x_t: Tensor, t: Tensor, embeddings: Sequence[Tensor], view: ViewCondition | None = None
    ) -> list[Tensor]:
        self.forwards += len(x_t) * len(embeddings)
        return self._ask(x_t, t, embeddings, view)

    @classmethod
    def of(cls, prior: Any) -> "ForwardCounter":
        """The counter of this prior, put in place where there is none yet."""
        if not isinstance(prior.predict_noise, cls):
            prior.predict_noise = cls(prior)
        counter: ForwardCounter = prior.predict_noise
        return counter
