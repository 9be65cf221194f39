"""Sources that give their batches one after the other, such as PyTorch's loaders."""

import numpy as np
import pytest
from training_toys import BATCH, COUNT, STEPS, assert_same, dense_model, make, toy

pytestmark = pytest.mark.backend('tensorflow', 'jax')
IMAGES, LABELS = toy()


class Loader:
    """Shuffles in each pass, by a generator of its own; the incomplete batch is left out."""

    def __init__(self, seed=5, steps=STEPS):
        self.generator, self.steps = np.random.default_rng(seed), steps
        self.orders = []

    def __len__(self):
        return self.steps

    def __iter__(self):
        order = self.generator.permutation(COUNT)
        self.orders.append(order)
        for step in range(STEPS):
            rows = order[step * BATCH : (step + 1) * BATCH]
            yield [IMAGES[rows], LABELS[rows].astype(np.int64)]


class Ordered:
    """The batches of the given orders by their numbers."""

    def __init__(self, orders):
        self.orders, self.epoch = orders, 0

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        rows = self.orders[self.epoch][index * BATCH : (index + 1) * BATCH]
        return IMAGES[rows], LABELS[rows]


def same_score(one, other):
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-5)
    assert one.accuracy == other.accuracy


def test_its_batches_are_those_of_its_passes():
    loader = Loader()
    streamed, other = make(dense_model()), make(dense_model())
    streamed.fit(loader, epochs=3)
    assert len(loader.orders) == 4  # one for the first batch alone, by which all are checked
    other.fit(Ordered(loader.orders[1:]), epochs=3)
    assert_same(streamed, other)


def test_resumed_it_ends_like_one_that_was_not_stopped(tmp_path):
    whole, before, after = (make(dense_model()) for _ in range(3))
    whole.fit(Loader(), epochs=3)
    options = {'checkpoint': tmp_path / 'c.npz', 'fingerprint': 'toy'}
    before.fit(Loader(), epochs=1, **options)
    after.fit(Loader(), epochs=3, resume=True, **options)
    assert_same(whole, after)


def test_it_is_evaluated_and_predicted_to_its_end():
    class InOrder:
        def __len__(self):
            return 3

        def __iter__(self):
            for rows in np.array_split(np.arange(COUNT), 3):
                yield IMAGES[rows], LABELS[rows]

    trainer = make(dense_model())
    same_score(trainer.evaluate(InOrder()), trainer.evaluate(IMAGES, LABELS))
    np.testing.assert_allclose(trainer.predict(InOrder()), trainer.predict(IMAGES), atol=1e-5)
    history = trainer.fit(IMAGES, LABELS, 1, validation_data=InOrder()).history
    np.testing.assert_allclose(history['val_loss'][0], trainer.evaluate(IMAGES, LABELS).loss, 1e-5)


def test_a_pass_that_ends_early_is_told():
    with pytest.raises(ValueError, match=r'as many batches in each pass as it says, 6\. Received'):
        make(dense_model()).fit(Loader(steps=STEPS + 1), epochs=1)


def test_one_without_a_length():
    class Unending:
        def __iter__(self):
            while True:
                yield IMAGES[:BATCH], LABELS[:BATCH]

    with pytest.raises(ValueError, match=r'such as a DataLoader\. Received: Unending'):
        make(dense_model()).fit(Unending(), epochs=1)


@pytest.mark.parametrize('drop_last', [False, True])
def test_a_loader_of_pytorch(drop_last):
    """Tensors, in lists; its incomplete last batch is left out of the training."""
    torch = pytest.importorskip('torch')
    data = torch.utils.data
    parts = data.TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS).long())
    loader = data.DataLoader(parts, BATCH, drop_last=drop_last)
    trainer, other = make(dense_model()), make(dense_model())
    trainer.fit(loader, epochs=2)
    other.fit(Ordered([np.arange(COUNT)] * 2), epochs=2)
    assert_same(trainer, other)
    seen = COUNT if not drop_last else STEPS * BATCH
    same_score(trainer.evaluate(loader), trainer.evaluate(IMAGES[:seen], LABELS[:seen]))
