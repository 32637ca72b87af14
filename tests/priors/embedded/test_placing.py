"""What holds solids, and where it goes."""

from random import Random

import pytest

from sds3d.priors.embedded.captions import RADIUS, build, build_things, parse
from sds3d.priors.embedded.solids import Solid, box, fit, frame

RED = (1.0, 0.0, 0.0)


def test_the_frame_of_a_box_is_its_middle_and_half_its_diagonal():
    solid = Solid("box", (0.3, -0.2, 0.1), (0.1, 0.2, 0.2), RED)
    assert frame([solid]) == pytest.approx((0.3, -0.2, 0.1, 0.3))
    low, high = box([solid, Solid("box", (-0.5, 0.0, 0.0), (0.1, 0.1, 0.1), RED)])
    assert low == pytest.approx([-0.6, -0.4, -0.1])
    assert high == pytest.approx([0.4, 0.1, 0.3])


def test_what_is_fitted_stands_in_the_middle_and_is_as_large_as_asked():
    solids = [Solid("ball", (1.0, 2.0, 3.0), (0.5, 0.4, 0.3), RED), Solid("box", (2.0, 2.0, 3.0), (0.1, 0.1, 0.1), RED)]
    assert frame(fit(solids, 0.7)) == pytest.approx((0.0, 0.0, 0.0, 0.7), abs=1e-6)


@pytest.mark.parametrize("text", ["a red mug", "a small red mug", "two red mugs", "a red cone on a blue cube"])
def test_an_object_is_its_things(text):
    description = parse(text)
    things = build_things(description, Random(5))
    assert [solid for thing in things for solid in thing] == build(description, Random(5))
    assert len(things) == (1 if description.relation is None else 2)
    *middle, reach = frame([solid for thing in things for solid in thing])
    assert middle == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
    assert reach <= RADIUS * 1.0001


def test_the_first_stands_left_of_the_second_and_below_what_it_carries():
    left, right = (frame(thing) for thing in build_things(parse("a small red cup beside a big blue car"), Random(1)))
    assert left[1] < 0.0 < right[1]
    assert left[3] < right[3]
    lower, upper = (frame(thing) for thing in build_things(parse("a red cone on a blue cube"), Random(1)))
    assert lower[2] < upper[2]
