"""The one check of sizes and counts."""

import numpy as np
import pytest

from fenwicks._checks import positive_integer


@pytest.mark.parametrize('value', [1, 24, np.int64(24), np.uint8(3)])
def test_positive_integers_come_back_plain(value):
    checked = positive_integer('epochs', value)
    assert type(checked) is int
    assert checked == value


@pytest.mark.parametrize('value', [0, -1, 2.0, np.float32(2), True, None, '3', [3]])
def test_anything_else(value):
    with pytest.raises(ValueError, match=r'^`epochs` must be a positive integer'):
        positive_integer('epochs', value)
