"""A last epoch that is a part of one: its steps, its record, resuming, and going on."""

import numpy as np
import pytest
from training_toys import STEPS, assert_same, interrupted, make, numbers, toy, values

from fenwicks import optimizers
from fenwicks.training import Trainer

pytestmark = pytest.mark.backend('tensorflow', 'jax')


def test_a_part_of_an_epoch_takes_a_part_of_its_steps():
    part, by_hand = make(), make()
    part.fit(*toy(), 2.6)  # 13 of 15 steps
    records = part.records
    by_hand.fit(*toy(), 2)
    totals = by_hand.run_steps(2, 0, 3)
    for ours, theirs in zip(values(part), values(by_hand), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [record['epoch'] for record in records] == [1, 2, 3]
    assert records[-1]['train_loss'] == totals.loss_sum / 3
    assert records[-1]['train_accuracy'] == totals.correct / (3 * part.batch_size)
    assert numbers(records[:2]) == numbers(by_hand.records)


@pytest.mark.parametrize(
    ('epochs', 'steps'), [(0.01, 1), (0.5, 3), (1.02, 5), (1.98, 10), (2.0, 10)]
)
def test_the_nearest_whole_number_of_steps(epochs, steps):
    trainer = make()
    trainer.fit(*toy(), epochs)
    assert int(np.asarray(trainer.optimizer.iterations)) == steps
    assert len(trainer.records) == -(-steps // STEPS)


@pytest.mark.parametrize('after', [1, 2])
def test_resuming_ends_bit_for_bit(tmp_path, after):
    """Interrupted before the last, short epoch, or within it."""
    path = tmp_path / 'c.npz'
    whole = make(averaging=optimizers.Lookahead(0.5, every=2, start=8))
    whole.fit(*toy(), 2.6)
    first = make(averaging=optimizers.Lookahead(0.5, every=2, start=8))
    interrupted(first, path, 2.6, after)
    resumed = make(averaging=optimizers.Lookahead(0.5, every=2, start=8))
    resumed.fit(*toy(), 2.6, checkpoint=path, resume=True)
    assert_same(whole, resumed)
    with resumed.averaged(), whole.averaged():
        assert_same(whole, resumed)


def test_a_finished_training_resumes_to_nothing_and_cannot_go_on(tmp_path):
    path = tmp_path / 'c.npz'
    trainer = make()
    trainer.fit(*toy(), 1.6, checkpoint=path)
    message = '^a training that ended with a part .* Received: epochs=2 after 1.6$'
    again = make()
    again.fit(*toy(), 1.6, checkpoint=path, resume=True)
    assert_same(trainer, again)
    for stopped, options in ((trainer, {}), (make(), {'checkpoint': path, 'resume': True})):
        with pytest.raises(ValueError, match=message):
            stopped.fit(*toy(), 2, **options)
    assert_same(trainer, again)


def test_averages_of_less_than_an_epoch_are_used():
    rule = optimizers.EMA(0.9, every=2)
    trainer = make(averaging=rule)
    assert isinstance(trainer, Trainer)
    trainer.fit(*toy(), 0.4)
    raw = values(trainer)[: len(trainer.model.variables)]
    with trainer.averaged():
        averaged = values(trainer)[: len(trainer.model.variables)]
    assert any(not np.array_equal(a, b) for a, b in zip(raw, averaged, strict=True))
