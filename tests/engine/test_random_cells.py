"""The native machine on cells drawn at random: 2,000 in CI; random_cells.py itself takes any number."""

import pytest
import torch
from random_cells import compare

from recurra.kernels.cpu import native

pytestmark = pytest.mark.skipif(native() is None, reason="built without the native machine")
BLOCK = 50


def test_a_choice_between_numbers_has_the_dtype_of_the_step():
    """Torch's default is float32: in double precision the derivative of max(a, a) times 0.3 was off in its eighth digit."""
    compare(866961917)


def test_a_state_that_becomes_another_is_kept_for_what_follows_the_loop():
    """A product of all frames read the copy that the loop makes for the other state, which holds its last frame alone."""
    compare(300010870)


@pytest.mark.parametrize("first", range(0, 2000, BLOCK), ids=lambda seed: f"seeds {seed} to {seed + BLOCK - 1}")
def test_drawn_cells_equal_the_plain_loop(first):
    threads = torch.get_num_threads()
    try:
        for seed in range(first, first + BLOCK):
            compare(seed)
    finally:
        torch.set_num_threads(threads)


def test_a_state_that_becomes_a_vector_of_numbers_keeps_its_gradient_apart():
    # The state's copy of the vector was summed as the cotangent of all frames; it holds the last one.
    compare(26290800)
