"""What every test runs under: fixed seeds, strict types in JAX, the global dtype policy put back.

Warnings are errors (`filterwarnings` in pyproject.toml). JAX mixes no dtypes by itself: an int32
times a float32, or a bfloat16 plus a float32, is an error where the code does not convert. Its rank
promotion stays as it is: Keras's operations and layers broadcast vectors over batches, as NumPy
does. `test_transfers.py` runs the JAX engine's loop under a guard against transfers.
"""

import errno
import os
import signal

# Before anything imports TensorFlow or JAX, here and in the processes that tests start.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # TensorFlow's notes on its own start
os.environ.setdefault('JAX_NUMPY_DTYPE_PROMOTION', 'strict')
# Tests take a few steps with each program, so that what XLA's highest level of optimization (3)
# costs is not earned.
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=1')
# Beside other workers of pytest-xdist, threads of TensorFlow and oneDNN would wait for cores that
# are taken: with one each, two workers on two cores need a seventh less time.
if 'PYTEST_XDIST_WORKER' in os.environ:
    for threads in ('TF_NUM_INTRAOP_THREADS', 'OMP_NUM_THREADS'):
        os.environ.setdefault(threads, '1')

# Before Keras, as it sets the environment of TensorFlow: the processes that tests start compute in
# the same kernels.
import fenwicks  # noqa: F401  isort: skip

import keras
import pytest

# A job in the background ignores SIGINT, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture
def denied(tmp_path, monkeypatch):
    """A folder in which nobody may create a file, not even root."""
    folder, create = tmp_path / 'locked', os.open
    folder.mkdir()

    def refuse(path, flags, *rest, **more):
        if flags & os.O_CREAT and str(path).startswith(str(folder)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return create(path, flags, *rest, **more)

    monkeypatch.setattr(os, 'open', refuse)
    return folder
