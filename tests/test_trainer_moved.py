"""Programs of `compile` and `fit` that move to the Trainer, with what they bring along."""

import re

import keras
import numpy as np
import pytest
from keras import ops
from training_toys import BATCH, dense_model, make, sgd, toy

import fenwicks
from fenwicks import evaluate, layers, optimizers
from fenwicks.training import DivergedError, Trainer, defaults

pytestmark = pytest.mark.backend('tensorflow', 'jax')
IMAGES, LABELS = toy()


class Halved(keras.layers.Layer):
    """A normalisation of the user's own."""

    def call(self, inputs):
        return inputs / 127.5 - 1


def flip():
    return keras.layers.RandomFlip('horizontal', seed=1)


def rescaling():
    return keras.layers.Rescaling(1 / 255)


# What an image passes before the first weights, in models that take raw pixels.
NORMALIZING = {
    'a layer': lambda x: rescaling()(x),
    'after a flip': lambda x: rescaling()(flip()(x)),
    'after two': lambda x: rescaling()(keras.Sequential([flip(), keras.layers.Resizing(8, 8)])(x)),
    'after padding': lambda x: rescaling()(keras.layers.ZeroPadding2D(1)(x)),
    'after a reshape': lambda x: rescaling()(keras.layers.Reshape((8, 24))(x)),
    'in a Sequential': lambda x: keras.Sequential([flip(), rescaling()])(x),
    'in a Pipeline': lambda x: keras.layers.Pipeline([flip(), rescaling()])(x),
    'a division': lambda x: x / 255.0,
    'a product': lambda x: x * (1 / 255),
    'keras.applications': keras.applications.mobilenet_v2.preprocess_input,
    'caffe': keras.applications.vgg16.preprocess_input,
    'a Lambda': lambda x: keras.layers.Lambda(lambda z: z / 255)(x),
    'their own layer': lambda x: Halved()(x),
    'ImageNet': lambda x: layers.ImageNetNormalization()(x),
    'batch norm': lambda x: keras.layers.BatchNormalization()(x),
    'frozen': lambda x: layers.FrozenBatchNormalization()(x),
    'Scaling': lambda x: layers.Scaling(1 / 255)(x),
    'in a container': lambda x: layers.Sequential([flip(), layers.Scaling(1 / 255)])(x),
    'in a container of containers': lambda x: layers.Sequential(
        [layers.Sequential([flip()]), keras.Sequential([rescaling(), keras.layers.Conv2D(4, 3)])]
    )(x),
}


def model_of(before, dtype='float32'):
    images = keras.Input((8, 8, 3), dtype=dtype)
    return keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(before(images))))


@pytest.mark.parametrize('before', NORMALIZING.values(), ids=NORMALIZING)
def test_a_model_that_normalizes_gets_raw_pixels(before):
    trainer = make(model_of(before))
    pixels = IMAGES.astype(np.float32)
    expected = trainer.model.predict(pixels, verbose=0)
    np.testing.assert_allclose(trainer.predict(IMAGES), expected, rtol=1e-4, atol=1e-4)


def test_a_model_of_integers_gets_pixels():
    trainer = make(model_of(lambda x: ops.cast(x, 'float32'), dtype='uint8'))
    expected = trainer.model.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(trainer.predict(IMAGES), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'before',
    [
        lambda x: x,
        lambda x: layers.Sequential([flip()])(x),
        lambda x: layers.Sequential([keras.layers.Conv2D(4, 3), rescaling()])(x),
        lambda x: layers.Parallel([keras.layers.Conv2D(4, 1), layers.Scaling(2.0)])(x),
        lambda x: flip()(x),
        lambda x: keras.layers.Conv2D(4, 3, activation='relu')(x),
        lambda x: rescaling()(keras.layers.Conv2D(4, 3)(x)),
        lambda x: keras.layers.Add()([keras.layers.Conv2D(3, 1)(x), keras.layers.Conv2D(3, 1)(x)]),
        lambda x: layers.ConvBN(4)(x),
    ],
    ids=[
        'nothing',
        'container',
        'conv in a container',
        'parallel',
        'flip',
        'conv',
        'conv, then a layer',
        'two branches',
        'ConvBN',
    ],
)
def test_other_models_get_the_unit_range(before):
    trainer = make(model_of(before))
    expected = trainer.model.predict(IMAGES / np.float32(255), verbose=0)
    np.testing.assert_allclose(trainer.predict(IMAGES), expected, rtol=1e-4, atol=1e-4)


def test_a_moved_program_trains_as_fit_does():
    """With one batch an epoch, in which the order doesn't matter."""
    images, labels = toy(BATCH)
    losses = []
    for moved in (False, True):
        keras.utils.set_random_seed(0)
        model = model_of(lambda x: rescaling()(keras.layers.ZeroPadding2D(1)(x)))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.SGD(0.1)
        if moved:
            trainer = Trainer(model, optimizer, loss, batch_size=BATCH)
            losses.append(trainer.fit(images, labels, 4).history['loss'])
        else:
            model.compile(optimizer, loss)
            fitted = model.fit(images, labels, BATCH, 4, verbose=0)
            losses.append(fitted.history['loss'])
    np.testing.assert_allclose(*losses, rtol=1e-4)


class Own(keras.Model):
    """Its layer that normalises isn't the first that it names."""

    def __init__(self, rescale):
        super().__init__()
        self.flat, self.dense = keras.layers.Flatten(), keras.layers.Dense(3)
        self.rescale = keras.layers.Rescaling(1 / 255) if rescale else None

    def call(self, images):
        images = images / 255 if self.rescale is None else self.rescale(images)
        return self.dense(self.flat(images))


@pytest.mark.parametrize('nested', [False, True])
def test_a_subclass_says_what_it_takes_or_is_warned_of(nested, caplog):
    models = [Own(rescale) for rescale in (True, False)]
    for model in models:
        model(np.zeros((1, 8, 8, 3), np.float32))
    if nested:
        models = [keras.Sequential([keras.Input((8, 8, 3)), flip(), each]) for each in models]
    assert make(models[0]).normalize is defaults.as_floats
    assert not caplog.records
    assert make(models[1]).normalize is defaults.to_unit_range
    assert re.match('pixels are divided by 255 for Own, .* `normalize`', caplog.messages[0])


def floats(images):
    return fenwicks.data.ImageBatches(images, LABELS, BATCH)


@pytest.mark.parametrize('scale', [1 / 255, 1 / 127.5, -1.0])
def test_a_stream_of_floats_that_are_no_pixels(scale):
    pixels = IMAGES.astype(np.float32) * np.float32(scale) - np.float32(scale == 1 / 127.5)
    source = [(pixels[:BATCH], LABELS[:BATCH])]
    trainer = make(dense_model())

    class Batches:
        __len__ = source.__len__
        __getitem__ = source.__getitem__

    rule = r'`images` must be pixels in \[0, 255\] .* normalize=partial\(augment.normalize, mean=0'
    for use in (trainer.fit, trainer.evaluate, trainer.predict):
        with pytest.raises(ValueError, match=rule):
            use(Batches())
    plain = make(dense_model(), normalize=lambda images: images)
    plain.fit(Batches(), epochs=1)
    expected = plain.model.predict(pixels[:BATCH], verbose=0)
    np.testing.assert_allclose(plain.predict(Batches()), expected, rtol=1e-4, atol=1e-5)


def fitted(model=None, labels=LABELS, **options):
    trainer = make(model or dense_model(), options.pop('optimizer', sgd()), **options)
    return trainer.fit(IMAGES, labels, 2).history['loss']


def test_labels_in_a_column():
    """As `keras.datasets.cifar10.load_data` has them."""
    assert fitted(labels=LABELS[:, None]) == fitted()
    trainer = make(dense_model())
    plain = trainer.evaluate(IMAGES, LABELS)
    assert trainer.evaluate(IMAGES, LABELS[:, None].astype(np.uint8)) == plain


def test_names_of_losses_and_optimizers():
    def softmax():
        return dense_model(activation='softmax')

    name = 'sparse_categorical_crossentropy'
    loss = keras.losses.SparseCategoricalCrossentropy()
    assert fitted(softmax(), loss=name) == fitted(softmax(), loss=loss)
    history = make(softmax(), loss=name).fit(IMAGES, LABELS, 1).history
    assert history['accuracy']
    adam = keras.optimizers.Adam()
    assert fitted(optimizer='adam') == fitted(optimizer=adam)
    one_hot = np.eye(3)[LABELS]
    mse = keras.losses.MeanSquaredError()
    assert fitted(labels=one_hot, loss='mse') == fitted(labels=one_hot, loss=mse)


def test_a_function_that_returns_a_loss_for_each_image():
    def focal(labels, outputs):
        chances = ops.softmax(outputs)
        right = ops.sum(chances * ops.one_hot(labels, 3), axis=-1)
        return -((1 - right) ** 2) * ops.log(right)

    def mean(labels, outputs):
        return ops.mean(focal(labels, outputs))

    assert fitted(loss=focal) == fitted(loss=mean)
    with pytest.raises(ValueError, match=r'`loss` must be a function of labels and outputs\. Rec'):
        make(dense_model(), loss=lambda outputs: ops.mean(outputs))


@pytest.mark.parametrize('name', ['train_step', 'test_step', 'compute_loss', 'compute_metrics'])
def test_a_step_of_the_users_own(name):
    """The Trainer would pass it over silently."""
    own = type('Own', (keras.Sequential,), {name: lambda *arguments, **options: None})
    model = own([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=f'`model` must not override {name}, .* Received: Own'):
        make(model)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('loss', keras.losses.SparseCategoricalCrossentropy),
        ('optimizer', keras.optimizers.Adam),
        ('averaging', optimizers.EMA),
    ],
)
def test_a_class_for_an_object(name, value):
    rule = rf'`{name}` must be an object, not a class: {value.__name__}\(\.\.\.\)\. Received'
    with pytest.raises(ValueError, match=rule):
        make(dense_model(), **{name: value})
    if name == 'averaging':
        with pytest.raises(ValueError, match='`rule` must be an object, not a class'):
            optimizers.WeightAveraging(value)


def test_float16_needs_a_scaled_loss():
    keras.config.set_dtype_policy('mixed_float16')
    with pytest.raises(ValueError, match=r'`optimizer` must be a keras.optimizers.LossScaleOptimi'):
        make(dense_model(), keras.optimizers.SGD(0.1))


def test_several_inputs_or_outputs():
    one, two = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    dense = keras.layers.Dense(3)
    flat = keras.layers.Flatten()
    both = keras.Model([one, two], dense(flat(keras.layers.Add()([one, two]))))
    with pytest.raises(ValueError, match=r'`model` must have one input, images\. Received: 2'):
        make(both)
    named = keras.Model(one, {'logits': dense(flat(one))})
    trainer = make(named)
    with pytest.raises(ValueError, match=r'must return its output itself: .* that returns a dict'):
        trainer.fit(IMAGES, LABELS, 1)


def test_a_loss_that_is_never_finite():
    """No rate would help before the first update."""
    trainer = make(dense_model(), loss=lambda labels, outputs: ops.mean(outputs) * np.nan)
    with pytest.raises((DivergedError, ValueError)) as raised:
        trainer.fit(IMAGES, LABELS, 1)
    trainer = make(dense_model(), augment=lambda images, seed: images * np.float32('nan'))
    with pytest.raises(DivergedError, match=r'must be finite at the first step, .* `augment`'):
        trainer.fit(IMAGES, LABELS, 1)
    assert 'learning rate' not in str(raised.value)


def test_batches_that_are_dicts():
    class Batches:
        def __len__(self):
            return 5

        def __getitem__(self, index):
            if not 0 <= index < 5:
                raise IndexError
            return {'image': IMAGES[:BATCH]}, LABELS[:BATCH]

    with pytest.raises(ValueError, match=r'one array of images each. Received: a dict of image'):
        make(dense_model()).fit(Batches(), epochs=1)


def test_the_checkpoint_of_another_network_says_where_they_differ(tmp_path):
    path = tmp_path / 'c.npz'

    def wide(units):
        return dense_model(keras.layers.Dense(units))

    make(wide(4)).fit(IMAGES, LABELS, 1, checkpoint=path)
    with pytest.raises(ValueError, match=r'first \(192, 4\) for the \(192, 5\) of .*kernel'):
        make(wide(5)).fit(IMAGES, LABELS, 2, checkpoint=path, resume=True)


def test_views_of_a_model_without_an_input():
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match='`model` must know its input shape'):
        evaluate.tta_model(model, evaluate.FLIP)


def test_a_checkpoint_of_true():
    with pytest.raises(ValueError, match=r'`checkpoint` must be the path of a file\. Rec.*: True'):
        make(dense_model()).fit(IMAGES, LABELS, 1, checkpoint=True)


@pytest.mark.parametrize('jit_compile', ['auto', None])
def test_jit_compile_as_keras_has_it(jit_compile):
    assert make(dense_model(), jit_compile=jit_compile).jit_compile is None
