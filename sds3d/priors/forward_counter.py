"""Counts forward passes of a prior: the cost by which guidance methods are compared, on any machine."""

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any
from weakref import ref

from torch import Tensor

from sds3d.priors.base import Prior
from sds3d.types import ViewCondition


class ForwardCounter:
    """Counts one forward for each view and condition in every call of `predict_noise`.

    The counter replaces the method on this one prior object, so the prior still satisfies every protocol it did before.
    The prior owns its counter and the counter refers to it weakly: a strong reference would be a cycle, and a prior of
    many gigabytes would stay in memory until Python's garbage collector happens to run.
    """

    def __init__(self, prior: Prior) -> None:
        self.forwards = 0
        method = prior.predict_noise
        bound = isinstance(method, MethodType)  # otherwise a plain function that was set on the object
        self._function: Callable[..., list[Tensor]] = getattr(method, "__func__", method)
        self._owner = ref(prior) if bound else None

    def __call__(
        self, x_t: Tensor, t: Tensor, embeddings: Sequence[Tensor], view: ViewCondition | None = None
    ) -> list[Tensor]:
        self.forwards += len(x_t) * len(embeddings)
        owner = () if self._owner is None else (self._owner(),)
        return self._function(*owner, x_t, t, embeddings, view)

    @classmethod
    def of(cls, prior: Any) -> "ForwardCounter":
        """The counter of this prior; installed on the first call, the same object on every later one."""
        if not isinstance(prior.predict_noise, cls):
            prior.predict_noise = cls(prior)
        counter: ForwardCounter = prior.predict_noise
        return counter
