"""The Trainer's checkpoints: what goes on ends as if it had never stopped."""

import errno
import math
import os
import signal

import keras
import numpy as np
import pytest
from scripts import holder
from training_toys import (
    STEPS,
    adam,
    assert_same,
    conv_model,
    dense_model,
    interrupted,
    make,
    toy,
    values,
    with_dropout,
)

from fenwicks import augment, optimizers
from fenwicks.training import checkpoint as checkpoints

pytestmark = pytest.mark.backend('tensorflow', 'jax')


def conv():
    return make(augment=augment.random_flip)


def dropout():
    return make(with_dropout(), adam(), augment=augment.random_flip)


def ema():
    flips = augment.compose([augment.alternating_flip, augment.random_crop])
    return make(averaging=optimizers.EMA(0.8, every=3), augment=flips)


def lookahead():
    return make(averaging=optimizers.Lookahead(lambda step: step / 30, every=4))


@pytest.mark.parametrize('trainer', [conv, dropout, ema, lookahead])
@pytest.mark.parametrize('after', [0, 2])
def test_resuming_ends_bit_for_bit_as_if_never_stopped(tmp_path, trainer, after):
    path, fingerprint = tmp_path / 'c.npz', {'knots': ((0, 1), (2, 3))}
    whole = trainer()
    whole.fit(*toy(), 4)
    first = trainer()
    interrupted(first, path, 4, after, fingerprint=fingerprint)
    assert path.exists() == (after > 0)
    second = trainer()
    history = second.fit(*toy(), 4, checkpoint=path, resume=True, fingerprint=fingerprint)
    assert_same(whole, second)
    np.testing.assert_array_equal(whole.predict(toy()[0]), second.predict(toy()[0]))
    assert len(history.epoch) == 4
    assert second.train_seconds == pytest.approx(sum(epoch['seconds'] for epoch in second.records))


@pytest.mark.parametrize('trainer', [conv, ema])
def test_a_half_trained_epoch_is_undone_by_the_checkpoint_or_refused(tmp_path, trainer):
    path = tmp_path / 'c.npz'
    whole = trainer()
    whole.fit(*toy(), 3)
    half = trainer()
    interrupted(half, path, 3, after=1)
    saved = path.read_bytes()
    del half._engines.at(0).run
    for options in ({}, {'checkpoint': path}, {'checkpoint': tmp_path / 'no.npz', 'resume': True}):
        with pytest.raises(ValueError, match=r'from a whole epoch: .* a half-trained epoch 2$'):
            half.fit(*toy(), 3, **options)
    assert path.read_bytes() == saved
    half.fit(*toy(), 3, checkpoint=path, resume=True)
    assert_same(whole, half)
    half.fit(*toy(), 4)
    whole.fit(*toy(), 4)
    assert_same(whole, half)


def test_a_finished_training_trains_no_more(tmp_path):
    path = tmp_path / 'c.npz'
    first = make(dense_model())
    first.fit(*toy(), 2, checkpoint=path)
    second = make(dense_model())
    second.fit(*toy(), 2, checkpoint=path, resume=True)
    assert_same(first, second)
    assert second.first_step_at is None
    assert second.compile_seconds == 0  # nor does it compile a program
    second.fit(*toy(), 3)  # and goes on where more is asked
    first.fit(*toy(), 3)
    assert_same(first, second)
    assert len(second.records) == 3


@pytest.mark.parametrize('seconds', [1e9, math.inf])
def test_the_first_step_after_resuming_is_one_step(tmp_path, monkeypatch, seconds):
    """Whatever the pace of the epochs before."""
    path = tmp_path / 'c.npz'
    make(dense_model()).fit(*toy(), 1, checkpoint=path)
    trainer, calls = make(dense_model(), seconds_per_call=seconds), []
    run = trainer._engines.at(0).run

    def noted(epoch, start, stop, *more, **options):
        calls.append((start, stop, trainer.first_step_at is None))
        return run(epoch, start, stop, *more, **options)

    monkeypatch.setattr(trainer._engines.at(0), 'run', noted)
    trainer.fit(*toy(), 2, checkpoint=path, resume=True)
    assert calls[-2:] == [(0, 1, True), (1, STEPS, False)]


def test_without_resume_a_checkpoint_is_ignored_and_replaced(tmp_path):
    path = tmp_path / 'c.npz'
    make(dense_model()).fit(*toy(), 2, checkpoint=path)
    trainer = make(dense_model())
    trainer.fit(*toy(), 1, checkpoint=path)
    assert len(trainer.records) == 1
    assert len(checkpoints.load_state(path)['history']) == 1


def test_resuming_with_other_settings(tmp_path):
    path = tmp_path / 'c.npz'
    make(dense_model()).fit(*toy(), 1, checkpoint=path, fingerprint={'batch_size': 4})
    for options, fingerprint, difference in [
        ({}, {'batch_size': 8}, 'settings.batch_size=8 instead of 4$'),
        ({}, None, 'settings.batch_size=nothing instead of 4, settings=None instead of nothing$'),
        ({}, {'batch_size': 4, 'limit': None}, 'settings.limit=None instead of nothing$'),
        ({'seed': 8}, {'batch_size': 4}, 'seed=8 instead of 7$'),
        ({'seed': 8}, {'batch_size': 4, 'seed': 7}, 'seed=8 instead of 7, settings.seed=7'),
    ]:
        trainer = make(dense_model(), **options)
        before = values(trainer)
        with pytest.raises(ValueError, match=f'settings of the checkpoint .* {difference}'):
            trainer.fit(*toy(), 2, checkpoint=path, resume=True, fingerprint=fingerprint)
        for old, new in zip(before, values(trainer), strict=True):
            np.testing.assert_array_equal(old, new)
        assert trainer.records == []
    with pytest.raises(ValueError, match='batch_size=2 instead of 4, steps_per_epoch=11 instead'):
        make(dense_model(), batch_size=2).fit(*toy(), 2, checkpoint=path, resume=True)
    with pytest.raises(ValueError, match='Received: steps_per_epoch=2 instead of 5,'):
        make(dense_model()).fit(*toy(11), 2, checkpoint=path, resume=True)


def test_resuming_on_another_backend(tmp_path, monkeypatch):
    """Its random numbers are others."""
    path = tmp_path / 'c.npz'
    make(dense_model()).fit(*toy(), 1, checkpoint=path)
    here, trainer = keras.backend.backend(), make(dense_model())
    monkeypatch.setattr(keras.backend, 'backend', lambda: 'another')
    with pytest.raises(ValueError, match=f"Received: backend='another' instead of '{here}'$"):
        trainer.fit(*toy(), 2, checkpoint=path, resume=True)


def test_a_checkpoint_in_a_folder_that_is_missing(tmp_path):
    trainer = make(dense_model())
    (tmp_path / 'file').touch()
    for path in (tmp_path / 'no' / 'c.npz', str(tmp_path / 'file' / 'c.npz')):
        with pytest.raises(ValueError, match='`checkpoint` must lie in a folder that exists'):
            trainer.fit(*toy(), 1, checkpoint=path)
    assert trainer.first_step_at is None


@pytest.mark.parametrize('wrap', [lambda inner: inner, keras.optimizers.LossScaleOptimizer])
def test_an_averaging_optimizer_goes_on_from_a_checkpoint_alone(tmp_path, wrap):
    """Its averages have taken the place of the weights when `fit` returns."""

    def averaging():
        return make(dense_model(), wrap(keras.optimizers.SGD(0.1, use_ema=True)))

    whole, cut = averaging(), averaging()
    whole.fit(*toy(), 3)
    cut.fit(*toy(), 2, checkpoint=tmp_path / 'c.npz')
    assert cut.fit(*toy(), 2).history == cut.history.history
    with pytest.raises(ValueError, match=r'use_ema must train in one go.* epochs=3 after 2$'):
        cut.fit(*toy(), 3)
    cut.fit(*toy(), 3, checkpoint=tmp_path / 'c.npz', resume=True)
    assert_same(whole, cut)


def test_resuming_from_nowhere():
    trainer = make(dense_model())
    with pytest.raises(ValueError, match='`resume` needs a `checkpoint` to go on from'):
        trainer.fit(*toy(), 1, resume=True)
    assert trainer.records == []


def test_resuming_with_another_model(tmp_path):
    path = tmp_path / 'c.npz'
    make(dense_model()).fit(*toy(), 1, checkpoint=path)
    with pytest.raises(ValueError, match=r'^the checkpoint must fit the model and its optimizer'):
        make(conv_model()).fit(*toy(), 2, checkpoint=path, resume=True)
    make(dense_model(keras.layers.Dense(5))).fit(*toy(), 1, checkpoint=path)
    with pytest.raises(
        ValueError, match=r'^the checkpoint must fit the model .* have other shapes'
    ):
        make(dense_model(keras.layers.Dense(6))).fit(*toy(), 2, checkpoint=path, resume=True)


def test_an_interrupt_while_a_checkpoint_is_read_waits_for_its_end(tmp_path, monkeypatch):
    path = tmp_path / 'c.npz'
    whole = make(dense_model())
    whole.fit(*toy(), 1, checkpoint=path)
    assign = checkpoints.assign

    def interrupted(variables, values):
        assign(variables[:3], values[:3])
        os.kill(os.getpid(), signal.SIGINT)
        assign(variables, values)

    monkeypatch.setattr(checkpoints, 'assign', interrupted)
    again = make(dense_model())
    with pytest.raises(KeyboardInterrupt):
        again.fit(*toy(), 2, checkpoint=path, resume=True)
    assert_same(again, whole)


def test_a_damaged_checkpoint_is_an_error_of_one_line(tmp_path):
    path = tmp_path / 'c.npz'
    make(dense_model()).fit(*toy(), 1, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r'the checkpoint must be a whole one .*c\.npz') as raised:
        make(dense_model()).fit(*toy(), 2, checkpoint=path, resume=True)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    ('fingerprint', 'reason'),
    [
        ({'a': np.zeros(2)}, 'ndarray'),
        ({'a': {1, 2}}, 'set'),
        ({(1, 2): 3}, 'tuple'),
        ({'a': np.complex64(1j)}, 'complex'),
        ({'a': dense_model}, 'function'),
    ],
)
def test_a_fingerprint_that_is_no_json_fails_before_any_step(fingerprint, reason):
    trainer = make(dense_model())
    message = rf'^`fingerprint` must be of what JSON can hold.* Received: .*{reason}'
    with pytest.raises(ValueError, match=message) as raised:
        trainer.fit(*toy(), 1, fingerprint=fingerprint)
    assert '\n' not in str(raised.value)
    assert trainer.first_step_at is None


def test_a_fingerprint_of_numpy_numbers(tmp_path):
    path, plain = tmp_path / 'c.npz', {'a': 3, 'b': [0.5, True]}
    given = {'a': np.int64(3), 'b': (np.float32(0.5), np.bool_(True))}
    make(dense_model()).fit(*toy(), 1, checkpoint=path, fingerprint=given)
    make(dense_model()).fit(*toy(), 1, checkpoint=path, resume=True, fingerprint=plain)


def test_a_checkpoint_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    for resume in (False, True):
        make(dense_model()).fit(*toy(), 1 + resume, checkpoint='~/c.npz', resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ['c.npz']


def test_a_folder_is_no_checkpoint(tmp_path):
    for resume in (False, True):
        trainer = make(dense_model())
        with pytest.raises(
            ValueError, match=r'^`checkpoint` must be the path of a file\. Received'
        ):
            trainer.fit(*toy(), 1, checkpoint=tmp_path, resume=resume)
        assert trainer.first_step_at is None


def test_a_folder_that_cannot_be_written_to_is_an_error_before_any_step(tmp_path, monkeypatch):
    def read_only(*arguments):
        raise OSError(errno.EROFS, 'Read-only file system')

    path = tmp_path / 'c.npz'
    finished = make(dense_model())
    finished.fit(*toy(), 1, checkpoint=path)
    monkeypatch.setattr('fenwicks._files._new_file', read_only)
    trainer = make(dense_model())
    message = r'^`checkpoint` must lie in a folder that can be written to\. .*\(Read-only file sys'
    with pytest.raises(OSError, match=message) as raised:
        trainer.fit(*toy(), 2, checkpoint=path, resume=True)
    assert '\n' not in str(raised.value)
    assert trainer.records == []
    assert trainer.first_step_at is None
    trainer = make(dense_model())
    trainer.fit(*toy(), 1, checkpoint=path, resume=True)  # nothing is left to be written
    assert_same(finished, trainer)


def test_a_file_of_something_else_is_no_checkpoint(tmp_path):
    checkpoints.save(tmp_path / 'c.npz', [], {'seed': 1})
    with pytest.raises(ValueError, match=r'c\.npz'):
        make(dense_model()).fit(*toy(), 1, checkpoint=tmp_path / 'c.npz', resume=True)


# Two trainings with one checkpoint


def test_the_second_training_with_a_checkpoint_is_refused_while_the_first_lives(tmp_path):
    path, refusals = tmp_path / 'c.npz', []

    class Second(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            for resume in (False, True):
                second = make(dense_model())
                before = values(second)
                with pytest.raises(BlockingIOError) as raised:
                    second.fit(*toy(), 3, checkpoint=path, resume=resume)
                refusals.append((second.first_step_at, str(raised.value)))
                assert second.records == []
                for a, b in zip(before, values(second), strict=True):
                    np.testing.assert_array_equal(a, b)

    trainer = make(dense_model())
    trainer.fit(*toy(), 2, checkpoint=path, callbacks=[Second()])
    message = f'`checkpoint` must not be in use by another training. Received: checkpoint={path}'
    assert refusals == [(None, message)] * 4
    assert [each.name for each in tmp_path.iterdir()] == ['c.npz']
    trainer.fit(*toy(), 3, checkpoint=path)  # in the same process, once the first call has ended
    make(dense_model()).fit(*toy(), 4, checkpoint=path, resume=True)
    assert [each.name for each in tmp_path.iterdir()] == ['c.npz']


def test_a_training_that_ends_in_an_error_lets_its_checkpoint_go(tmp_path):
    interrupted(make(dense_model()), tmp_path / 'c.npz', 3, after=1)
    assert [each.name for each in tmp_path.iterdir()] == ['c.npz']


def test_a_claim_ends_with_its_process(tmp_path):
    path = tmp_path / 'c.npz'
    with holder('claimed', path) as process:
        with pytest.raises(BlockingIOError, match='`checkpoint` must not be in use by another'):
            make(dense_model()).fit(*toy(), 1, checkpoint=path)
        process.kill()
        process.wait()
    make(dense_model()).fit(*toy(), 1, checkpoint=path)
    assert [each.name for each in tmp_path.iterdir()] == ['c.npz']
