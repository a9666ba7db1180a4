"""Each cell learns a small real task, by the example that shows how."""

import digits
import pytest

from recurra.cells import CELLS, LSTMCell, zoneout


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_learns_to_read_digits(name):
    assert digits.learn(name) > 0.75  # chance is 0.1


def test_a_wrapped_cell_does_too():
    assert digits.learn(lambda D, H: zoneout(LSTMCell(D, H), 0.05)) > 0.75
