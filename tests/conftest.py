"""Fixed seeds and a clean dtype policy for every test, and a mark that skips by backend."""

import os

# Before anything imports TensorFlow: its notes on its own start belong to no test.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import keras
import pytest


def pytest_configure(config):
    config.addinivalue_line('markers', 'backend(*names): runs on these Keras backends only')


def pytest_runtest_setup(item):
    mark = item.get_closest_marker('backend')
    if mark is not None and keras.backend.backend() not in mark.args:
        pytest.skip(f'needs KERAS_BACKEND={" or ".join(mark.args)}')


@pytest.fixture(autouse=True)
def _isolated():
    """Seeds Python, NumPy and the backend; puts back the global dtype policy afterwards."""
    keras.utils.set_random_seed(0)
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)
