"""Reductions over the tokens of a mask."""

import math

import pytest
import torch
from by_hand import RAGGED, close

from rlhf.masked import last_token, masked_mean, masked_whiten


def test_reductions_leave_out_what_is_masked() -> None:
    x, mask = torch.tensor([[1.0, 2.0], [3.0, 99.0]]), torch.tensor([[True, True], [True, False]])
    assert masked_mean(x, mask).item() == 2
    close(masked_whiten(x, mask), [[-1.0, 0.0], [1.0, 0.0]])  # mean 2, unbiased std 1
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    assert masked_mean(x, nothing).item() == 0
    close(masked_whiten(x, nothing), [[0.0, 0.0], [0.0, 0.0]])


def test_a_mask_that_counts_is_the_token_as_often() -> None:
    # 1, 1, 4: mean 2, unbiased variance (1 + 1 + 4)/2 = 3.
    x, twice = torch.tensor([[1.0, 4.0, -50.0]]), torch.tensor([[2.0, 1.0, 0.0]])
    assert masked_mean(x, twice).item() == 2
    close(masked_whiten(x, twice), [[-1 / math.sqrt(3), 2 / math.sqrt(3), 0.0]])


@pytest.mark.parametrize("value", [0.1, -3.3, 0.7, 12345.678])
def test_whitening_never_blows_up_a_rounding_error(value: float) -> None:
    # The mean of seven times 0.1 is not 0.1 in float32, and the std of equal entries is that error.
    assert masked_whiten(torch.full((7, 3), value), torch.ones(7, 3).bool()).abs().max() == 0
    nearly = torch.full((7, 3), 0.1)
    nearly[0, 0] += 1e-8  # a rounding error of its own
    assert masked_whiten(nearly, torch.ones(7, 3).bool()).abs().max() < 1e-3


def test_the_last_token_of_each_row() -> None:
    assert last_token(RAGGED).tolist() == [[False, False, True], [False, True, False]]
    assert last_token(torch.tensor([[True], [False]])).tolist() == [[True], [False]]
