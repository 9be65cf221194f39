"""Several devices that share each batch take the steps that one would take."""

import functools
import importlib.util
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name('sharding_run.py')
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec('jax') is None, reason='JAX is not installed'),
    pytest.mark.thorough,
]


@functools.cache
def run():
    environment = {
        **os.environ,
        'KERAS_BACKEND': 'jax',
        'PYTHONPATH': str(SCRIPT.parent.parent),
        'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=4',
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ('one', 'four'),
    [
        # A device's share is a ghost batch.
        ('ghosts_on_one', 'shares_on_four'),
        ('whole_on_one', 'whole_on_four'),
        ('flipped_on_one', 'flipped_on_four'),
    ],
)
def test_four_devices_train_like_one(one, four):
    one, four = run()[one], run()[four]
    np.testing.assert_allclose(one['losses'], four['losses'], rtol=2e-5)
    np.testing.assert_allclose(one['statistics'], four['statistics'], rtol=2e-4, atol=2e-5)


def test_the_comparison_can_fail():
    losses = [run()[name]['losses'] for name in ('ghosts_on_one', 'whole_on_one', 'flipped_on_one')]
    for a, b in itertools.pairwise(losses):
        assert abs(a[-1][0] - b[-1][0]) > 1e-3
    assert abs(losses[0][-1][0] - losses[0][0][0]) > 0.1  # it learns


def test_each_device_draws_for_itself():
    seeds = run()['seeds']
    assert len({tuple(seed) for seed in seeds}) == 4
    assert [3, 4] not in seeds


def test_means_of_gradients_and_whole_weights():
    # Four devices, whose gradients are 1/3, 2/3, 1 and 4/3.
    means, weights, shards = run()['mean_gradients']
    for mean, shape in zip(means, [(4, 2), (3, 2)], strict=False):
        np.testing.assert_allclose(mean, np.full(shape, 5 / 6), rtol=2**-8)
    np.testing.assert_allclose(means[2], np.full(5, 5 / 6), rtol=1e-6)
    assert weights == [np.arange(8).reshape(4, 2).tolist(), [[0, 1], [2, 3], [4, 5]], [*range(5)]]
    assert shards == [[1, 2], [3, 2], [5]]


def test_kernels_travel_as_they_are_computed_with():
    """A kernel with 4 inputs in parts, one with 3 whole, as batch norm's; the head in float32."""
    messages = run()['messages_of_sgd']
    assert messages.count('all_gather 3x3x4x8xbf16') == 1
    assert messages.count('reduce_scatter 3x3x1x8xbf16') == 1
    assert messages.count('all_reduce 3x3x3x4xbf16') == 1
    assert messages.count('all_gather 8x5xf32') == 1
    assert messages.count('reduce_scatter 2x5xf32') == 1
    kernels = [message for message in messages if re.search(r'\dx\d', message)]
    assert len(kernels) == 5
    assert 'all_reduce 4xf32' in messages


def test_what_depends_on_all_numbers_is_not_divided():
    messages = run()['messages_of_clipped_sgd']
    assert {message.split()[0] for message in messages} == {'all_reduce'}
    assert messages.count('all_reduce 3x3x4x8xbf16') == 1


def test_trainers_that_divide_and_that_do_not_follow_each_other():
    """Per-device statistics make the losses differ from one device's, but little."""
    one, divided = run()['trained_on_by_one'], run()['trained_on_divided']
    np.testing.assert_allclose(run()['trained_on_by_four'], one, rtol=2e-5)
    np.testing.assert_allclose(divided, one, rtol=0.1)
    assert divided[-1] < 0.8 * divided[0]


def test_an_interrupt_leaves_the_model_its_weights():
    assert run()['predicts_when_interrupted']


def test_all_accelerators_share_a_batch_but_not_the_parts_of_a_processor():
    assert run()['counts'] == [1, 4]


def test_bad_arguments():
    from fenwicks.training.replicas import jax as sharding

    with pytest.raises(ValueError, match=r'per_replica, synchronized\. Received: batch_norm=froz'):
        sharding.from_devices(['a device'], 'frozen')
    with pytest.raises(ValueError, match=r'`devices` must hold a device'):
        sharding.from_devices([])
    alone = sharding.JaxReplicas()
    alone.check_batch(7)
    alone.count = 8
    with pytest.raises(ValueError, match=r'multiple of 8, the replicas on v5e:2x4\. Received'):
        alone.check_batch(500, 'v5e:2x4')
