"""Replicas: many devices, and many processes, take the steps that one device would take."""

import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from scripts import free_ports
from training_toys import assert_same, conv_model, make, sgd, toy

from fenwicks import augment, training

SCRIPT = pathlib.Path(__file__).with_name('replicas_run.py')
BACKENDS = ('tensorflow', 'jax')
PAIRS = [
    ('shares_on_4', 'ghosts_of_8'),
    ('whole_on_4', 'whole_on_1'),
    ('streamed_on_4', 'ghosts_of_8'),
    ('streamed_whole_on_4', 'whole_on_1'),
    ('muon_on_2', 'muon_on_1'),
    ('scaled_on_2', 'scaled_on_1'),
    ('plain_resumed_on_2', 'plain_on_1'),
    ('own_loss_on_2', 'own_loss_on_1'),
    ('resumed_on_2', 'ghosts_of_16'),
    ('globally_on_2', 'globally_on_1'),
    ('clipped_parts_on_2', 'clipped_on_1'),
    ('hard_on_2', 'hard_parts_on_1'),
]
SCORES = ('f1_score', 'auc')
# Of two processes together, and of one device.
PROCESS_PAIRS = {
    'all': 'ghosts_of_16',
    'all_plain': 'plain_on_1',
    'all_whole': 'whole_on_1',
    # Each process fetches its half of each batch, and nothing else.
    'streamed_all': 'ghosts_of_16',
    'streamed_all_whole': 'whole_on_1',
}


def start(backend, *cases, script=SCRIPT, **environment):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f'{backend} is not installed')
    environment = {
        **os.environ,
        'KERAS_BACKEND': backend,
        'PYTHONPATH': str(script.parent.parent),
        'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=8',
        **environment,
    }
    return subprocess.Popen(
        [sys.executable, str(script), *cases],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(*processes):
    try:
        # All at once: they wait for each other, and each for somebody to read what it prints.
        with ThreadPoolExecutor() as pool:
            ends = list(pool.map(lambda process: process.communicate(timeout=600), processes))
    finally:
        for process in processes:
            process.kill()
    said = '\n\n'.join(stderr[-3000:] for _, stderr in ends)
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return [json.loads(stdout.splitlines()[-1]) for stdout, _ in ends]


@functools.cache
def run(backend):
    # The several first: TensorFlow cuts up its processor before its first operation, once for all.
    cases = list(dict.fromkeys(case for pair in zip(*PAIRS, strict=True) for case in pair))
    if backend == 'tensorflow':
        cases.append('seeds')
    (found,) = results(start(backend, *cases))
    return found


def assert_alike(one, other):
    np.testing.assert_allclose(one['losses'], other['losses'], rtol=2e-5)
    assert one['accuracies'] == other['accuracies']
    for key in ('logits', 'variables', 'watched', 'best'):
        if key in other:
            np.testing.assert_allclose(one[key], other[key], rtol=2e-4, atol=2e-5, err_msg=key)


@pytest.mark.thorough
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(('several', 'alone'), PAIRS[:4])
def test_validation_metrics_and_callbacks_are_those_of_one_device(backend, several, alone):
    """On four devices, of arrays and streams, with weights of images and of classes."""
    several, alone = run(backend)[several], run(backend)[alone]
    names = [name for name in alone['history'] if name not in ('accuracy', 'loss')]
    assert names == ['learning_rate', *SCORES, *(f'val_{s}' for s in ('loss', 'accuracy', *SCORES))]
    for name in names:
        np.testing.assert_allclose(
            several['history'][name], alone['history'][name], rtol=2e-5, err_msg=name
        )
    assert several['lines'] == alone['lines'] == 3


@pytest.mark.thorough
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(('several', 'alone'), PAIRS)
def test_several_devices_train_like_one(backend, several, alone):
    several, alone = run(backend)[several], run(backend)[alone]
    assert several['replicas'] in (2, 4)
    assert alone['replicas'] == 1
    assert_alike(several, alone)


@pytest.mark.thorough
@pytest.mark.parametrize('backend', BACKENDS)
def test_the_comparison_can_fail(backend):
    names = {alone for _, alone in PAIRS} - {'ghosts_of_16'}
    losses = [run(backend)[alone]['losses'][-1] for alone in names]
    assert len({round(loss, 4) for loss in losses}) == len(losses)
    first, last = run(backend)['own_loss_on_1']['losses']
    assert last < first - 0.01


@pytest.mark.thorough
def test_each_device_draws_for_itself():
    expected = [augment.fold((3, 4), number).tolist() for number in range(4)]
    assert run('tensorflow')['seeds'] == expected


def environments(backend):
    """What tells two processes of each other."""
    first, second = free_ports(2)
    if backend == 'jax':
        return [
            {
                'JAX_COORDINATOR_ADDRESS': f'localhost:{first}',
                'JAX_NUM_PROCESSES': '2',
                'JAX_PROCESS_ID': str(number),
                'XLA_FLAGS': os.environ['XLA_FLAGS'],
            }
            for number in range(2)
        ]
    cluster = {'chief': [f'localhost:{first}'], 'worker': [f'localhost:{second}']}
    tasks = [{'type': kind, 'index': 0} for kind in cluster]
    return [{'TF_CONFIG': json.dumps({'cluster': cluster, 'task': task})} for task in tasks]


@pytest.mark.backend('tensorflow')
@pytest.mark.parametrize(
    ('cluster', 'several'),
    [
        ({'chief': ['a'], 'worker': ['b']}, True),
        ({'worker': ['a', 'b']}, True),
        ({'worker': ['a']}, False),
        ({'worker': ['a'], 'ps': ['b'], 'evaluator': ['c']}, False),
        ({}, False),
    ],
)
def test_the_processes_that_train_are_chief_and_workers(monkeypatch, cluster, several):
    from fenwicks.devices import tensorflow as strategies

    class Asked(Exception):
        pass

    def strategy():
        raise Asked

    monkeypatch.setattr(strategies, '_workers_strategy', strategy)
    monkeypatch.setenv('TF_CONFIG', json.dumps({'cluster': cluster}))
    if several:
        with pytest.raises(Asked):
            training.replicate(device='cpu')
    else:
        assert training.replicate(device='cpu').processes == 1


@pytest.mark.backend('tensorflow')
def test_evaluators_and_parameter_servers_are_no_processes_that_train():
    import tensorflow as tf

    from fenwicks.training.replicas import tensorflow as mirroring

    class Strategy(tf.distribute.MultiWorkerMirroredStrategy):
        num_replicas_in_sync = 2

        def __init__(self):
            pass

        class cluster_resolver:
            task_type, task_id = 'worker', 0

            @staticmethod
            def cluster_spec():
                kinds = {'worker': ['a', 'b'], 'ps': ['c'], 'evaluator': ['d']}
                return tf.train.ClusterSpec(kinds)

    replicas = mirroring.MirroredReplicas(Strategy(), 'per_replica')
    assert (replicas.processes, replicas.chief, replicas.local_count) == (2, True, 1)


@pytest.mark.backend('tensorflow')
@pytest.mark.parametrize('config', ['{"cluster": ', '[]', '{"cluster": 3}', '{"cluster": ["a:1"]}'])
def test_a_broken_description_of_the_processes_is_named(monkeypatch, config):
    monkeypatch.setenv('TF_CONFIG', config)
    with pytest.raises(ValueError, match='`TF_CONFIG` must be a JSON object') as raised:
        training.replicate(device='cpu')
    assert str(raised.value).endswith(f'Received: TF_CONFIG={config}')


@pytest.mark.thorough
@pytest.mark.parametrize('backend', BACKENDS)
def test_two_processes_train_like_one_and_one_of_them_writes(backend):
    chief, other = results(
        *(start(backend, *PROCESS_PAIRS, **told) for told in environments(backend))
    )
    for name, alone in PROCESS_PAIRS.items():
        assert chief[name]['processes'] == chief[name]['replicas'] == 2
        assert chief[name]['checkpoint']
        assert not other[name]['checkpoint']
        assert_alike(chief[name], run(backend)[alone])
        assert chief[name]['variables'] == other[name]['variables']
        if name.startswith('streamed'):
            assert chief[name]['fetched'] == other[name]['fetched'] == 2 * 2 * 16
            for each in (chief, other):
                assert 'in each process: drop_remainder=True. Re' in each[name]['uneven']
                assert each[name]['uneven'].endswith('Received: 1, 2 batches')


@pytest.mark.backend('tensorflow')
def test_the_loop_in_the_replica_as_on_tpus():
    """A strategy whose devices may loop by themselves takes the steps of none."""
    import tensorflow as tf

    alone = make()
    alone.fit(*toy(), 2)
    with tf.distribute.OneDeviceStrategy('/cpu:0').scope():
        trainer = make()
    assert type(trainer.replicas).__name__ == 'TPUReplicas'
    trainer.fit(*toy(), 1)
    trainer.fit(*toy(), 2)
    assert_same(trainer, alone)
    images = toy()[0]
    np.testing.assert_array_equal(trainer.predict(images, 5), alone.predict(images, 5))


@pytest.mark.backend('tensorflow')
def test_the_tpu_of_this_machine(monkeypatch):
    import tensorflow as tf

    from fenwicks.devices import selection
    from fenwicks.devices import tensorflow as strategies

    asked = []
    monkeypatch.setattr(selection, '_find_devices', lambda: {'cpu', 'tpu'})
    monkeypatch.setattr(
        tf.distribute.cluster_resolver, 'TPUClusterResolver', lambda tpu: asked.append(tpu) or tpu
    )
    monkeypatch.setattr(tf.config, 'experimental_connect_to_cluster', asked.append)
    monkeypatch.setattr(tf.tpu.experimental, 'initialize_tpu_system', asked.append)
    monkeypatch.setattr(
        tf.distribute, 'TPUStrategy', lambda resolver: tf.distribute.OneDeviceStrategy('/cpu:0')
    )
    monkeypatch.setattr(strategies, '_tpu_strategy', strategies._tpu_strategy.__wrapped__)
    replicas = training.replicate(device='tpu')
    assert asked == ['local'] * 3
    assert replicas.count == 1
    assert not replicas.supports_jit
    with pytest.raises(ValueError, match=r'`replicas` must be 1, all devices of the strategy\.'):
        training.replicate(8, device='tpu')


@pytest.mark.backend('tensorflow')
def test_a_model_made_outside_of_the_scope():
    import tensorflow as tf

    from fenwicks.training.replicas import tensorflow as mirroring

    replicas = mirroring.from_strategy(tf.distribute.MirroredStrategy(['CPU:0']))
    with pytest.raises(ValueError, match=r'must be made in the scope of the strategy.* outside'):
        make(replicas=replicas)


@pytest.mark.backend('tensorflow', 'jax')
def test_bad_arguments(monkeypatch):
    with pytest.raises(ValueError, match=r'per_replica, synchronized\. Received: batch_norm=froz'):
        training.replicate(batch_norm='frozen')
    for count in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match=r'`replicas` must be a positive integer'):
            training.replicate(count)
    keras.ops.zeros(())  # from now on there are as many devices as there are
    with pytest.raises(ValueError, match=r'`replicas` must be at most \d+, .* kind cpu here') as e:
        training.replicate(4096, device='cpu')
    assert '\n' not in str(e.value)
    assert ('before its first operation' in str(e.value)) == (keras.backend.backend() != 'jax')

    three = training.replicate(1, device='cpu')
    three.count = 3
    model = conv_model()
    with pytest.raises(ValueError, match=r'`batch_size` must be a multiple of 3, the replicas on'):
        make(model, replicas=three)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction='sum')
    with pytest.raises(ValueError, match=r'`loss` must be a mean over the batch'):
        training.Trainer(model, sgd(), loss, batch_size=6, replicas=three)
    three.count, three.processes = 1, 2
    with pytest.raises(ValueError, match=r'`seconds_per_call` must be None where several'):
        make(model, replicas=three, seconds_per_call=1.0)


def test_synchronized_replicas_on_jax_take_the_batch_as_a_whole():
    jax = pytest.importorskip('jax')
    from fenwicks.training.replicas import jax as sharding

    mesh = jax.sharding.AbstractMesh((2,), ('replicas',))
    for kind, images in ((sharding.ShardMapReplicas, 16), (sharding.SynchronizedReplicas, 32)):
        several = kind.__new__(kind)
        sharding.JaxReplicas.__init__(several, mesh)
        assert several.model_batch_size(32) == images


@pytest.mark.backend('tensorflow', 'jax')
def test_a_trainer_that_is_not_told_takes_one_processor():
    assert make().replicas.count == 1
