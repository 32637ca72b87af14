"""What tests of several folders ask of whole runs."""

import torch

from sds3d import Session
from sds3d.run.events import Finished


def end_of(session: Session) -> dict[str, torch.Tensor]:
    """The scene of a run that goes to its end."""
    *_, last = session.run()
    assert isinstance(last, Finished)
    assert not last.interrupted
    return session.scene().state_dict()


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
