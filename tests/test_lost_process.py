"""One of two processes that train together is killed: the other says so, and both can go on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from scripts import ROOT, free_ports

pytestmark = [pytest.mark.slow, pytest.mark.backend('tensorflow')]  # it starts both backends

FLAGS = (
    *('--dataset=digits', '--limit=256', '--batch_size=64', '--device=cpu', '--precision=float32'),
    *('--recipe=page10', '--width=0.03', '--epochs=100', '--noreport'),
)
# Until a killed process is missed; a busy machine needs longer to say so.
SECONDS = int(os.environ.get('FENWICKS_SECONDS', '60'))


def environments(backend):
    """What tells two processes of each other."""
    first, second = free_ports(2)
    if backend == 'jax':
        address = {'JAX_COORDINATOR_ADDRESS': f'localhost:{first}', 'JAX_NUM_PROCESSES': '2'}
        return [{**address, 'JAX_PROCESS_ID': str(number)} for number in range(2)]
    cluster = {'worker': [f'localhost:{first}', f'localhost:{second}']}
    tasks = [{'type': 'worker', 'index': index} for index in range(2)]
    return [{'TF_CONFIG': json.dumps({'cluster': cluster, 'task': task})} for task in tasks]


def start(backend, out, *flags):
    return [
        subprocess.Popen(
            [sys.executable, str(ROOT / 'examples/cifar10.py'), *FLAGS, f'--out={out}', *flags],
            env={
                **os.environ,
                'KERAS_BACKEND': backend,
                'PYTHONPATH': str(ROOT),
                **environment,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in environments(backend)
    ]


def end(processes):
    """Ends those that still live, and closes what they wrote to."""
    for process in processes:
        with process:
            process.kill()


def ends(*processes):
    """Exit status and standard error of each."""
    try:
        errors = [process.communicate(timeout=600)[1] for process in processes]
    finally:
        end(processes)
    return [p.returncode for p in processes], errors


@pytest.mark.parametrize('victim', [0, 1])
@pytest.mark.parametrize('backend', ['tensorflow', 'jax'])
def test_the_other_ends_in_one_line_and_both_go_on(backend, victim, tmp_path):
    pytest.importorskip(backend)
    out = tmp_path / 'out'
    processes = start(backend, out)
    survivor = processes[1 - victim]
    try:
        while not (out / 'checkpoint.npz').exists():
            assert survivor.poll() is None, survivor.communicate()[1]
            time.sleep(0.1)
        processes[victim].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        _, stderr = survivor.communicate(timeout=SECONDS)
    finally:
        end(processes)
    print(f'{backend}: the other ended after {time.monotonic() - killed:.0f} s')
    if (backend, victim) == ('jax', 0) and survivor.returncode == -signal.SIGABRT:
        # JAX itself ends a process that hears no more of the first one.
        assert 'another task died' in stderr
    else:
        line = stderr.splitlines()[-1]
        assert survivor.returncode == 1, stderr
        assert line.startswith('cifar10.py: all processes must live until the training ends'), line
    status, errors = ends(*start(backend, out, '--resume'))
    assert status == [0, 0], errors
    assert len(json.loads((out / 'result.json').read_text())['history']) == 100
