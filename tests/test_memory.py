"""Free memory, in containers too; what doesn't fit is refused with what to do."""

import numpy as np
import pytest
from training_toys import dense_model, make, toy

from fenwicks.training import memory

pytestmark = pytest.mark.backend('tensorflow', 'jax')
GIGABYTE = 2**30


def meminfo(folder, available=4 * GIGABYTE):
    path = folder / 'meminfo'
    path.write_text(f'MemTotal:  999 kB\nMemAvailable:   {available // 1024} kB\n')
    return path


def test_the_machine_and_the_container_bound_it(tmp_path):
    assert memory.free_ram(meminfo(tmp_path), tmp_path) == 4 * GIGABYTE
    (tmp_path / 'memory.max').write_text(f'{2 * GIGABYTE}\n')
    (tmp_path / 'memory.current').write_text(f'{GIGABYTE}\n')
    (tmp_path / 'memory.stat').write_text('anon 5\ninactive_file 1024\n')
    assert memory.free_ram(meminfo(tmp_path), tmp_path) == GIGABYTE + 1024
    assert memory.free_ram(meminfo(tmp_path, 2**20), tmp_path) == 2**20
    (tmp_path / 'memory.max').write_text('max\n')
    assert memory.free_ram(meminfo(tmp_path), tmp_path) == 4 * GIGABYTE


def test_containers_of_the_first_version(tmp_path):
    folder = tmp_path / 'memory'
    folder.mkdir()
    (folder / 'memory.limit_in_bytes').write_text(f'{GIGABYTE}')
    (folder / 'memory.usage_in_bytes').write_text(f'{GIGABYTE}')
    (folder / 'memory.stat').write_text('total_inactive_file 4096\n')
    assert memory.free_ram(meminfo(tmp_path), tmp_path) == 4096


def test_what_is_not_known_bounds_nothing(tmp_path):
    assert memory.free_ram(tmp_path / 'none', tmp_path) is None
    assert memory.free_memory(on_cpu=True) > 0


class Device:
    def __init__(self, free):
        self.free = free

    def memory_stats(self):
        return self.free and {'bytes_limit': 10 * self.free, 'bytes_in_use': 9 * self.free}


@pytest.mark.backend('jax')
def test_the_fullest_device_of_the_training_bounds_it(monkeypatch):
    import jax

    for free, least in (((5, 3, 7), 3), ((None, 4), 4), ((None, None), None)):
        monkeypatch.setattr(jax, 'local_devices', lambda free=free: [*map(Device, free)])
        assert memory.free_memory(on_cpu=False) == least
    real = jax.devices()[-1]
    monkeypatch.setattr(jax, 'local_devices', lambda: pytest.fail('another device was asked'))
    with jax.default_device(real):
        assert memory.free_memory(on_cpu=False) is None or real.platform != 'cpu'


@pytest.mark.backend('tensorflow')
def test_the_fullest_gpu_bounds_it(monkeypatch):
    import tensorflow as tf

    used = {'GPU:0': 10, 'GPU:1': 30, 'GPU:2': 20}
    monkeypatch.setattr(memory, '_gpu_memory', lambda: 100)
    monkeypatch.setattr(
        tf.config.experimental, 'get_memory_info', lambda name: {'current': used[name]}
    )
    for count, free in ((1, 90), (3, 70), (0, None)):
        monkeypatch.setattr(tf.config, 'list_logical_devices', lambda _, n=count: [object()] * n)
        assert memory.free_memory(on_cpu=False) == free


def test_arrays_beyond_the_budget_are_refused_before_the_first_step():
    images, labels = toy()
    needed = images.nbytes + labels.nbytes
    trainer = make(dense_model(), memory_budget=needed - 1)
    with pytest.raises(ValueError, match='`memory_budget` allows: stream them, fit') as error:
        trainer.fit(images, labels, 1)
    assert 'ImageBatches' in str(error.value)
    assert '\n' not in str(error.value)
    make(dense_model(), memory_budget=needed).fit(images, labels, 1)
    make(dense_model(), memory_budget=needed - 1).fit([(images[:4], labels[:4])] * 5, epochs=1)


def test_arrays_beyond_the_free_memory_are_refused(monkeypatch):
    images, labels = toy()
    monkeypatch.setattr(memory, 'free_ram', lambda: 1000)
    with pytest.raises(ValueError, match=r'fit the 1e-06 GB that are free on the device: stream'):
        make(dense_model()).fit(images, labels, 1)
    monkeypatch.setattr(memory, 'free_ram', lambda: None)
    make(dense_model()).fit(images, labels, 1)


def test_a_huge_array_is_not_touched():
    """A memory map of the whole disk's size: nothing of it is read."""
    images = np.broadcast_to(np.zeros((1, 8, 8, 3), np.uint8), (2**28, 8, 8, 3))
    with pytest.raises(ValueError, match='`images` must fit the'):
        make(dense_model()).fit(images, np.broadcast_to(np.int32(0), 2**28), 1)


def test_data_of_an_earlier_call_make_room():
    memory.check_fits(1000, 400, held=600, budget=None)
    with pytest.raises(ValueError, match='that are free on the device'):
        memory.check_fits(1000, 400, held=599, budget=None)
