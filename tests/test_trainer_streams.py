"""The Trainer on sources of batches: the numbers of the same batches as arrays, to the bit."""

import threading

import keras
import numpy as np
import pytest
from stream_toys import Changed, Resident, Shuffled
from training_toys import (
    BATCH,
    COUNT,
    STEPS,
    Stop,
    assert_same,
    conv_model,
    dense_model,
    make,
    toy,
    values,
    warned,
)

from fenwicks import augment, data, optimizers
from fenwicks.training import chunks, sources

pytestmark = pytest.mark.backend('tensorflow', 'jax')
tensorflow_only = pytest.mark.backend('tensorflow')

AUGMENT = augment.compose([augment.random_crop, augment.random_flip, augment.alternating_flip])
PER_STEP = BATCH * (8 * 8 * 3 + 4 + 4)  # bytes of a step of `toy()`


def trainer_of(model=dense_model, **options):
    options = {'augment': AUGMENT, 'averaging': optimizers.EMA(0.8, every=3)} | options
    return make(model(), **options)


@pytest.mark.parametrize(('steps', 'model'), [(1, dense_model), (2, conv_model)])
def test_a_stream_in_the_resident_order_makes_the_same_training(steps, model):
    """Whatever the chunks: of one step, of two with a short last one; never of a whole epoch."""
    options = {'memory_budget': 2 * steps * PER_STEP}
    resident, streamed = (trainer_of(model, **options) for _ in range(2))
    resident.memory_budget = None
    resident.fit(*toy(), 3)
    streamed.fit(Resident(), epochs=3)
    assert_same(resident, streamed)


def test_image_sizes_and_accumulation_are_those_of_the_resident_path():
    model = {'image_sizes': ((0, 6), (1, 8)), 'accumulate': 2}
    trainers = [make(pooled_model(), **model, augment=augment.random_flip) for _ in range(2)]
    trainers[0].fit(*toy(), 2)
    trainers[1].fit(Resident(), epochs=2)
    assert_same(*trainers)


def pooled_model():
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(3),
        ]
    )


@pytest.mark.parametrize('source', [Resident, Shuffled, lambda: image_batches()])
def test_a_resumed_stream_ends_like_one_that_was_not_stopped(source, tmp_path):
    whole, before, after = (make(dense_model()) for _ in range(3))
    whole.fit(source(), epochs=3)
    path = tmp_path / 'c.npz'
    before.fit(source(), epochs=1, checkpoint=path, fingerprint='toy')
    after.fit(source(), epochs=3, checkpoint=path, resume=True, fingerprint='toy')
    assert_same(whole, after)


def test_a_loader_goes_on_with_its_shuffle_in_the_next_fit():
    """Each `iter` of it is a pass, so the second `fit` must not ask for one to look at."""
    whole, parts = make(dense_model()), make(dense_model())
    whole.fit(Loader(), epochs=3)
    source = Loader()
    parts.fit(source, epochs=2)
    parts.fit(source, epochs=3)
    assert_same(whole, parts)


class Loader:
    """As a `DataLoader` with a generator: another order in each pass, known from the seed."""

    def __init__(self):
        self.random = np.random.default_rng(5)

    def __len__(self):
        return STEPS

    def __iter__(self):
        images, labels = toy()
        order = self.random.permutation(COUNT)
        for step in range(STEPS):
            chosen = order[step * BATCH :][:BATCH]
            yield images[chosen], labels[chosen]


def test_a_resumed_stream_of_unknown_data_is_a_warning(tmp_path):
    path = tmp_path / 'c.npz'

    def go_on(source, epochs, **options):
        make(dense_model()).fit(source, epochs=epochs, checkpoint=path, resume=True, **options)

    go_on(Resident(), 1)
    message = 'a resumed training can only check the form of the batches of a Resident: describe'
    warned(lambda: go_on(Resident(), 2), message)
    with pytest.raises(ValueError, match=r"settings\.data='other' instead of nothing$"):
        go_on(Resident(), 2, fingerprint={'data': 'other'})
    path.unlink()
    go_on(image_batches(), 1)
    go_on(image_batches(), 2)


def image_batches(**options):
    images, labels = toy()
    options = {'shuffle': True, 'seed': 3, 'drop_remainder': True} | options
    return data.ImageBatches(images, labels, BATCH, **options)


def test_a_checkpoint_knows_its_stream(tmp_path):
    path = tmp_path / 'c.npz'
    make(dense_model()).fit(image_batches(), epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match='`resume` must go on with the settings of'):
        make(dense_model()).fit(image_batches(seed=4), epochs=2, checkpoint=path, resume=True)


def test_image_batches_give_each_image_once_and_its_place():
    """Also where the last batch is short: it is left out, as that of arrays."""
    batches = image_batches(drop_remainder=False)
    trained = make(dense_model(), augment=augment.alternating_flip)
    trained.fit(batches, epochs=2)
    images, labels, places = batches.stored_batch(0)
    assert (images.dtype, places.dtype) == (np.uint8, np.int32)
    np.testing.assert_array_equal(images, batches.images[places])
    np.testing.assert_array_equal(labels, batches.labels[places])
    assert trained.history.params['steps'] == STEPS


def test_images_stay_bytes_until_the_device_and_the_next_chunk_is_fetched_meanwhile():
    """Each chunk is fetched by another thread, one ahead of that which trains."""
    trainer = make(dense_model(), memory_budget=2 * PER_STEP)
    engine = trainer._engines.at(0)
    place, run, seen, done = engine.place_chunk, engine.run, [], []

    def noted(chunk):
        assert threading.current_thread() is not threading.main_thread()
        seen.append((chunk.images.dtype.name, chunk.images.shape, chunk.first, len(done)))
        return place(chunk)

    def counted(*arguments, **named):
        totals = run(*arguments, **named)
        done.extend([None] * totals.steps)
        return totals

    engine.place_chunk, engine.run = noted, counted
    trainer.fit(Resident(), epochs=2)
    assert [each[:3] for each in seen] == [
        (
            'uint8',
            (1, BATCH, 8, 8, 3),
            step,
        )
        for _ in range(2)
        for step in range(STEPS)
    ]
    assert all(trained <= number for number, (*_, trained) in enumerate(seen))


@pytest.mark.parametrize('workers', [1, 3])
def test_workers_do_not_change_the_order(workers):
    one, many = make(dense_model()), make(dense_model())
    one.fit(Shuffled(), epochs=2)
    many.fit(Shuffled(workers=workers), epochs=2)
    assert_same(one, many)


def test_arrays_and_streams_follow_each_other():
    mixed, streamed = make(dense_model()), make(dense_model())
    streamed.fit(Resident(), epochs=3)
    source = Resident()
    mixed.fit(source, epochs=1)
    mixed.fit(*toy(), 2)
    mixed.fit(source, epochs=3)
    assert_same(mixed, streamed)


def test_float_images_are_normalized_as_they_are():
    bytes_, floats = make(dense_model()), make(dense_model())
    bytes_.fit(Changed(-1, None), epochs=1)
    floats.fit(Changed(-1, None, dtype=np.float32), epochs=1)
    assert_same(bytes_, floats)


@tensorflow_only
@pytest.mark.parametrize('resumed', [False, True])
def test_a_tf_dataset(resumed, tmp_path):
    """Shuffled by a seed, anew in each pass; a resumed training draws the passes before."""
    import tensorflow as tf

    def dataset():
        batches = tf.data.Dataset.from_tensor_slices(toy()).shuffle(COUNT, seed=4)
        return batches.batch(BATCH, drop_remainder=True)

    trainer, other = make(dense_model()), make(dense_model())
    if resumed:
        first = make(dense_model())
        first.fit(dataset(), epochs=1, checkpoint=tmp_path / 'c.npz', fingerprint='toy')
    options = {'checkpoint': tmp_path / 'c.npz', 'fingerprint': 'toy'}
    trainer.fit(dataset(), epochs=3, resume=resumed, **options)
    passes = dataset()
    batches = [list(passes.as_numpy_iterator()) for _ in range(3)]
    other.fit(Listed(batches), epochs=3)
    assert_same(trainer, other)


class Listed:
    def __init__(self, epochs):
        self.epochs, self.epoch = epochs, 0

    def __len__(self):
        return len(self.epochs[0])

    def __getitem__(self, index):
        return self.epochs[self.epoch][index]


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_a_source_is_validated_on_all_its_images(dtype):
    """Also on the incomplete last batch; floats as the training gives them."""
    held_out = toy(23, seed=3)
    source = data.ImageBatches(*held_out, 5) if dtype == np.uint8 else Batches(*held_out)
    arrays, sources = make(dense_model()), make(dense_model())
    arrays.fit(Changed(-1, None), epochs=1, validation_data=held_out)
    sources.fit(Changed(-1, None, dtype=dtype), epochs=1, validation_data=source)
    assert_same(arrays, sources)


class Batches:
    """Of five float images, and their weights, all 1."""

    def __init__(self, images, labels):
        self.images, self.labels = images.astype(np.float32), labels

    def __len__(self):
        return -(-len(self.images) // 5)

    def __getitem__(self, index):
        rows = slice(5 * index, 5 * index + 5)
        return self.images[rows], self.labels[rows], np.ones(len(self.labels[rows]))


def test_sources_that_cannot_be_validated():
    trainer = make(dense_model())
    for source, message in (
        (Batches(*toy()), 'like the training data: .*uint8'),
        (Batches(toy()[0][:, :6], toy()[1]), 'like the training data: '),
        (
            Changed(2, lambda x, y: (x[:, :6], y)),
            r'give batches of one form. Received: .*\(6, 8, 3',
        ),
        (Changed(2, lambda x, y: x), r'like the training data: .*pairs \(images, labels\)'),
        (Endless(), 'like the training data: .* without a length'),
        (np.zeros(3), r'must be \(images, labels\)'),
    ):
        with pytest.raises(ValueError, match=message) as raised:
            trainer.fit(*toy(), 1, validation_data=source)
        assert str(raised.value).startswith('`validation_data` must ')
    assert trainer.first_step_at is None


LABELS = toy()[1]
SOFT = 0.7 * np.eye(3)[LABELS] + 0.1
BITS = np.stack([LABELS > 0, LABELS > 1, LABELS == 0], 1)
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)
WEIGHTS = np.linspace(0, 3, COUNT)
FORMS = {
    'soft labels': (SOFT, None, {}),
    'one-hot integers': (np.eye(3, dtype=int)[LABELS], None, {}),
    'bits': (BITS, BINARY, {}),
    'bits that are integers': (BITS.astype(np.int64), BINARY, {'weights': WEIGHTS}),
    'a number': (WEIGHTS, keras.losses.MeanSquaredError(), {}),
    'weights': (LABELS, None, {'weights': WEIGHTS, 'class_weight': {0: 3.0, 2: 0.5}}),
}


@pytest.mark.parametrize('form', FORMS)
def test_labels_and_weights_reach_the_device_as_those_of_arrays_do(form):
    labels, loss, options = FORMS[form]
    weights, class_weight = options.get('weights'), options.get('class_weight')
    trainer = make(dense_model() if labels.ndim == 2 or loss is None else one_output(), loss=loss)
    arrays = trainer._open_feed(toy()[0], labels, class_weight, weights)
    placed = []
    trainer._engines.at(0).place_chunk = placed.append
    feed = trainer._open_feed(Resident(labels, weights), None, class_weight)
    feed.start(0, 1)
    feed.stop()
    rows = Resident().stored_batch(0)[2]
    for whole, part in zip(arrays._targets, placed[0].targets, strict=True):
        assert whole.dtype == part.dtype
        np.testing.assert_array_equal(whole[rows], part[0, :BATCH])


def one_output():
    parts = [keras.layers.Flatten(), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((8, 8, 3)), *parts])


def test_weights_make_the_training_that_they_make_with_arrays(tmp_path):
    options, path = {'class_weight': {0: 3.0, 2: 0.5}}, tmp_path / 'c.npz'
    resident, streamed = (make(dense_model()) for _ in range(2))
    resident.fit(toy()[0], SOFT, 2, sample_weight=WEIGHTS, **options)
    streamed.fit(Resident(SOFT, WEIGHTS), epochs=2, checkpoint=path, **options)
    assert_same(resident, streamed)
    with pytest.raises(ValueError, match='`resume` must go on with the settings of'):
        make(dense_model()).fit(Resident(SOFT, WEIGHTS), epochs=3, checkpoint=path, resume=True)


@tensorflow_only
def test_a_tf_dataset_with_soft_labels_and_weights():
    import tensorflow as tf

    whole = tf.data.Dataset.from_tensor_slices((toy()[0], SOFT, WEIGHTS))
    trainer, other = make(dense_model()), make(dense_model())
    trainer.fit(whole.batch(BATCH, drop_remainder=True), epochs=1)
    other.fit(Changed(-1, None, labels=SOFT, weights=WEIGHTS), epochs=1)
    assert_same(trainer, other)


@tensorflow_only
def test_tf_datasets_that_do_not_fit():
    import tensorflow as tf

    trainer = make(dense_model())
    slices = tf.data.Dataset.from_tensor_slices(toy())
    whole = slices.batch(BATCH, drop_remainder=True)
    with pytest.raises(ValueError, match=r'fixed shape: \.batch\(batch_size, drop_remainder=True'):
        trainer.fit(slices.batch(BATCH), epochs=1)
    with pytest.raises(ValueError, match='must know how many batches are in a pass'):
        trainer.fit(whole.repeat(), epochs=1)
    with pytest.raises(ValueError, match=r'pairs \(images, labels\).*Received: a TensorSpec'):
        trainer.fit(whole.map(lambda images, labels: images), epochs=1)
    short = whole.take(3).apply(tf.data.experimental.assert_cardinality(STEPS))
    with pytest.raises(ValueError, match=r'as it says, 5\. Received: the end after 3'):
        trainer.fit(short, epochs=1)


def spoilt(images, labels):
    images = images.copy()
    images[0, 0, 0, 0] = np.nan
    return images, labels


def ended(images, labels):
    raise IndexError


FAULTS = {
    'other shape': (
        lambda x, y: (x[:, :7], y),
        {},
        r'of one form.*\(7, 8, 3\).* in batch 3 of epoch 1',
    ),
    'other dtype': (lambda x, y: (np.float32(x), y), {}, 'one form, uint8.*Received: float32'),
    'other labels': (lambda x, y: (x, y[:, None]), {}, r'one form.*labels \(1,\)'),
    'short': (lambda x, y: (x[:3], y[:3]), {}, 'batches of 4 images. Received: 3 images'),
    'fewer labels': (lambda x, y: (x, y[:3]), {}, '4 images and 3 labels in batch 3'),
    'nan': (spoilt, {'dtype': np.float32}, 'finite numbers. Received: infinite or NaN images in'),
    'label': (lambda x, y: (x, y + 9), {}, r'`labels` must be in \[0, 3\).* in batch 3 of epoch 1'),
    'large label': (
        lambda x, y: (x, y + 2**32),
        {'labels': toy()[1].astype(np.int64)},
        r'`labels` must be in \[0, 3\). Received: labels from 4294967296 .* in batch 3 of epoch 1',
    ),
    'weights': (lambda x, y: (x, y, np.ones(4)), {}, 'one form, .* Received: .* with weights in'),
    'no weights': (
        lambda x, y, w: (x, y),
        {'weights': np.ones(COUNT)},
        'one form, .* with weights',
    ),
    'negative weights': (
        lambda x, y, w: (x, y, w - 2),
        {'weights': np.ones(COUNT)},
        '`sample_weight` must be finite and >= 0.* in batch 3 of epoch 1',
    ),
    'soft': (
        lambda x, y: (x, y * 2),
        {'labels': SOFT},
        '`labels` of several classes .* must be probabilities.* in batch 3 of epoch 1',
    ),
    'one thing': (lambda x, y: x, {}, r'pairs \(images, labels\)'),
    'four': (lambda x, y: (x, y, y, y), {}, r'pairs \(images, labels\).*a tuple of 4'),
    'end': (ended, {}, r'as it says, 5\. Received: the end after 2'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_stream_that_changes_ends_in_one_line(fault):
    change, options, message = FAULTS[fault]
    trainer = make(dense_model())
    with pytest.raises(ValueError, match=message) as error:
        trainer.fit(Changed(2, change, **options), epochs=1)
    assert '\n' not in str(error.value)
    assert not [thread for thread in threading.enumerate() if 'fenwicks' in thread.name]


@pytest.mark.parametrize('beyond', [2**31, 2**32, -(2**32), 2**63])
def test_labels_beyond_32_bits_are_no_classes(beyond):
    """They were taken without what exceeds 32 bits, and some were classes then."""
    images, labels = toy()
    labels = labels.astype(np.uint64 if beyond > 2**62 else np.int64) + type(labels[0].item())(0)
    labels = labels + labels.dtype.type(beyond)
    trainer = make(dense_model())
    batches = [(images[i : i + BATCH], labels[i : i + BATCH]) for i in (0, 4)]
    first = f'labels from {labels[:BATCH].min()} to {labels[:BATCH].max()}'
    message = rf'`labels` must be in \[0, 3\). Received: {first}'
    for call in (trainer.evaluate, trainer.fit, lambda x: trainer.fit(*x[0])):
        with pytest.raises(ValueError, match=message):
            call(batches)


def test_what_is_no_stream():
    images, labels = toy()
    trainer = make(dense_model())
    with pytest.raises(ValueError, match='`labels` must be given with an array'):
        trainer.fit(images, epochs=1)
    with pytest.raises(ValueError, match=r'or a source of batches.*Received: generator'):
        trainer.fit((batch for batch in [(images, labels)]), epochs=1)
    with pytest.raises(ValueError, match='without a length'):
        trainer.fit(Endless(), epochs=1)
    with pytest.raises(ValueError, match=r'that of the batches of the stream.*=4, and .* 5 images'):
        trainer.fit([(images[:5], labels[:5])], epochs=1)
    with pytest.raises(ValueError, match='at least one whole batch'):
        trainer.fit([], epochs=1)
    with pytest.raises(ValueError, match=r'shape \(count, 8, 8, 3\) that the model takes'):
        trainer.fit([(images[:4, :7], labels[:4])], epochs=1)
    with pytest.raises(ValueError, match=r'uint8 or float images.*int64'):
        trainer.fit([(images[:4].astype(np.int64), labels[:4])], epochs=1)
    with pytest.raises(ValueError, match=r'batches with labels. Received: images alone'):
        trainer.fit(data.ImageBatches(images, None, BATCH), epochs=1)
    with pytest.raises(ValueError, match='without `normalize` and `augment`'):
        trainer.fit(image_batches(normalize=lambda images: images / 255), epochs=1)
    with pytest.raises(ValueError, match=r'`augment` must not ask for the `indices`.*Shuffled'):
        make(dense_model(), augment=augment.alternating_flip).fit(Shuffled(), epochs=1)
    with pytest.raises(ValueError, match='`sample_weight` must be None with a source of batches'):
        trainer.fit(Resident(), epochs=1, sample_weight=WEIGHTS)
    with pytest.raises(ValueError, match=r'`class_weight` must be of the classes in \[0, 3\)'):
        trainer.fit(Resident(), epochs=1, class_weight={3: 1.0})
    with pytest.raises(ValueError, match=r'`images` must be an array. Received: a source'):
        trainer.load(Resident(), None)


class Endless:
    def __getitem__(self, index):
        return toy()


def test_errors_of_the_source_arrive_and_the_model_keeps_its_weights():
    def broken(images, labels):
        raise Stop

    trainer = make(dense_model(), memory_budget=2 * PER_STEP)
    with pytest.raises(Stop):
        trainer.fit(Changed(3, broken), epochs=1)
    assert all(np.isfinite(value).all() for value in values(trainer))
    assert int(trainer.optimizer.iterations) <= 3


def test_chunks_follow_the_budget():
    stream = sources.open_stream(Resident(), BATCH)
    targets = (stream.first.labels,)
    assert chunks.steps_per_chunk(stream, targets, 1, 2 * PER_STEP) == 1
    assert chunks.steps_per_chunk(stream, targets, 1, 2**30) == 2  # a quarter of an epoch
    assert chunks.steps_per_chunk(stream, targets, 2, 2 * PER_STEP) == 2
    with pytest.raises(ValueError, match=f'two batches, of {2 * PER_STEP} bytes on each'):
        chunks.steps_per_chunk(stream, targets, 1, 2 * PER_STEP - 1)
    with pytest.raises(ValueError, match='`memory_budget` must be a positive integer'):
        make(memory_budget=0)


def test_a_short_last_chunk_needs_no_other_program():
    trainer = make(dense_model(), memory_budget=4 * PER_STEP)  # chunks of 2, 2 and 1 steps
    trainer.fit(Resident(), epochs=1)
    program = trainer._engines.at(0)
    if keras.backend.backend() == 'jax':
        compiled = program._compiled
        trainer.fit(Resident(), epochs=2)
        assert program._compiled is compiled
    else:
        assert program._run.experimental_get_tracing_count() == 1
