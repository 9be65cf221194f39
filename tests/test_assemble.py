"""From a recipe to a trainer: every setting arrives where it belongs."""

import dataclasses
import functools
import re

import keras
import numpy as np
import pytest

from fenwicks import (
    assemble,
    augment,
    data,
    evaluate,
    layers,
    losses,
    optimizers,
    precision,
    recipes,
    training,
)
from fenwicks.data import Dataset

pytestmark = pytest.mark.backend('tensorflow', 'jax')
LATER = pytest.mark.thorough

RECIPE = dataclasses.replace(
    recipes.get('fenwicks24_gpu'),
    widths=(2, 4, 4, 8),
    batch_size=8,
    cutout=4,
    crop_padding=2,
    label_smoothing=0.1,
    momentum=0.8,
    weight_decay=0.003,
    logit_scale=0.25,
)


def toy(count=20, classes=3, size=8):
    rng = np.random.default_rng(0)

    def images(count):
        return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)

    labels = np.arange(count, dtype=np.int32) % classes
    names = tuple(f'class {i}' for i in range(classes))
    return Dataset('toy', images(count), labels, images(5), labels[:5], names, 'made')


def test_a_seed_is_an_integer_of_any_kind():
    one, other = (assemble.build_trainer(RECIPE, toy(), seed=s) for s in (3, np.int64(3)))
    for a, b in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r'^`seed` must be .*Received: seed=-1'):
        assemble.build_trainer(RECIPE, toy(), seed=-1)


def test_every_setting_arrives():
    dataset = toy()
    trainer = assemble.build_trainer(RECIPE, dataset, seed=5)
    assert trainer.model.input_shape == (None, 8, 8, 3)
    assert trainer.model.output_shape == (None, 3)
    kernels = [v for v in trainer.model.trainable_variables if len(v.shape) == 4]
    assert [kernel.shape[-1] for kernel in kernels] == [2, 4, 4, 4, 4, 8, 8, 8]
    optimizer = trainer.optimizer
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.8, True, 0.003)
    assert isinstance(trainer.loss, losses.CrossEntropy)
    assert trainer.loss.label_smoothing == 0.1
    assert (trainer.batch_size, trainer.seed) == (8, 5)
    # Two steps an epoch: the peak after 5 epochs, zero after 24.
    rates = []
    for step in (0, 5, 10, 29, 48):
        optimizer.iterations.assign(step)
        rates.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
    assert rates == pytest.approx([0.0, 0.2, 0.4, 0.2, 0.0])


def test_page_has_his_own_sgd_and_first_step():
    steps_per_epoch = 4
    page, fenwicks = (
        assemble.optimizer(recipes.get(name), steps_per_epoch) for name in ('page24', 'fenwicks24')
    )
    assert (page.rate_in_velocity, fenwicks.rate_in_velocity) == (True, False)
    rise = 5 * steps_per_epoch
    # The same corners; Page's first update reads the schedule at 1.
    assert page.rate_at(0) == pytest.approx(0.4 / rise)
    assert fenwicks.rate_at(0) == 0
    assert page.rate_at(rise - 1) == fenwicks.rate_at(rise) == pytest.approx(0.4)
    assert page.rate_at(24 * steps_per_epoch - 1) == 0


def test_the_logit_scale_arrives():
    logits = []
    for scale in (0.25, 0.5):
        recipe = dataclasses.replace(RECIPE, logit_scale=scale)
        trainer = assemble.build_trainer(recipe, toy())
        logits.append(trainer.predict(toy().test_images))
    np.testing.assert_allclose(2 * logits[0], logits[1], rtol=1e-5)


def test_normalisation_is_by_the_training_set():
    dataset = toy()
    trainer = assemble.build_trainer(RECIPE, dataset)
    mean, std = data.mean_std(dataset.train_images)
    inputs = augment.normalize(dataset.test_images, mean, std)
    logits = keras.ops.convert_to_numpy(trainer.model(inputs, training=False))
    np.testing.assert_allclose(trainer.predict(dataset.test_images), logits, rtol=1e-4, atol=1e-5)


def test_the_seed_decides_the_weights():
    one, same, other = (
        assemble.build_trainer(RECIPE, toy(), seed=seed).model for seed in (1, 1, 2)
    )
    for a, b, c in zip(one.weights, same.weights, other.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        if a.path.endswith('kernel'):
            assert not np.array_equal(np.asarray(a), np.asarray(c))


def test_the_augmentations_in_their_order():
    images = np.random.default_rng(1).standard_normal((6, 8, 8, 3), np.float32)
    seed = (3, 4)
    crop, flip, cut = assemble.augmentations(RECIPE)
    np.testing.assert_array_equal(crop(images, seed), augment.random_crop(images, seed, padding=2))
    np.testing.assert_array_equal(flip(images, seed), augment.random_flip(images, seed))
    np.testing.assert_array_equal(cut(images, seed), augment.random_cutout(images, seed, size=4))


def test_a_further_augmentation_is_named_in_the_recipe(monkeypatch):
    def random_brightness(images, seed, limit=0.1):
        return images + limit

    monkeypatch.setattr(augment, 'random_brightness', random_brightness, raising=False)
    monkeypatch.setattr(augment, '__all__', [*augment.__all__, 'random_brightness'])
    more = dataclasses.replace(RECIPE, augmentations=('random_brightness(limit=0.5)',))
    _, _, brighten, _ = assemble.augmentations(more)
    images = np.zeros((6, 8, 8, 3), np.float32)
    np.testing.assert_array_equal(brighten(images, (3, 4)), images + 0.5)
    grouped = dataclasses.replace(more, augmentation_groups=2)
    assert assemble.augmentations(grouped)[2](images, None, 0, np.arange(6), (0, 1)).min() == 0.5


# By their own words.
OF_PIXELS = [
    name
    for name in augment.__all__
    if name.startswith('random_') and '0...255' in getattr(augment, name).__doc__
]


@pytest.mark.parametrize('name', OF_PIXELS)
def test_what_changes_pixels_gets_pixels(name):
    """Normalised images became noise."""
    assert len(OF_PIXELS) == 4
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3)).astype('float32')
    statistics = np.array([120.0, 110.0, 100.0]), np.array([60.0, 61.0, 62.0])
    recipe = dataclasses.replace(RECIPE, crop_padding=0, flip='none', cutout=0)
    recipe = dataclasses.replace(recipe, augmentations=(name,))
    (transform,) = assemble.augmentations(recipe, *statistics)
    made = transform(augment.normalize(pixels, *statistics), (3, 4))
    expected = augment.normalize(getattr(augment, name)(pixels, (3, 4)), *statistics)
    np.testing.assert_allclose(made, expected, atol=1e-3)


def test_the_trainer_augments_by_the_statistics_of_its_images(monkeypatch):
    given = []
    monkeypatch.setattr(assemble, 'augmentations', lambda _, *each: given.extend(each) or [])
    assemble.build_trainer(RECIPE, toy())
    np.testing.assert_array_equal(given, data.mean_std(toy().train_images))


@pytest.mark.parametrize(
    ('step', 'groups', 'message'),
    [
        (
            'random_resized_crop',
            0,
            'takes .height, width, area, ratio., height and width at least. .*: none',
        ),
        ('random_resized_crop(width=8)', 0, 'settings that random_resized_crop takes .*: width'),
        ('random_mixup(seed=3)', 0, 'settings that random_mixup takes .alpha.. Received: seed'),
        ('alternating_flip(epoch=1)', 0, 'that alternating_flip takes .none.. Received: epoch'),
        ('random_mixup', 2, '`augmentation_groups` must be 0 where labels change, as by random_mi'),
    ],
)
def test_an_augmentation_gets_what_it_takes(step, groups, message):
    recipe = dataclasses.replace(RECIPE, augmentations=(step,), augmentation_groups=groups)
    with pytest.raises(ValueError, match=message):
        assemble.augmentations(recipe)


@pytest.mark.parametrize('field', ['crop_padding', 'flip', 'cutout'])
def test_an_augmentation_can_be_left_out(field):
    without = dataclasses.replace(RECIPE, **{field: 'none' if field == 'flip' else 0})
    assert len(assemble.augmentations(without)) == 2
    bare = dataclasses.replace(RECIPE, crop_padding=0, flip='none', cutout=0)
    assert assemble.augmentations(bare) == []


def test_a_precision_that_clear_session_has_reset_is_noticed():
    chosen = precision.set_precision('bfloat16')
    keras.utils.clear_session()
    with pytest.raises(ValueError, match=r'dtype policy.*precision=bfloat16, policy of float32'):
        assemble.build_trainer(RECIPE, toy(), precision=chosen)


@pytest.mark.thorough
@pytest.mark.parametrize('chosen', ['float32', 'bfloat16', 'float16'])
def test_each_precision_trains_a_step(chosen):
    precision.set_precision(chosen)
    dataset = toy()
    trainer = assemble.build_trainer(RECIPE, dataset, precision=chosen)
    scaled = isinstance(trainer.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (chosen == 'float16')
    history = trainer.fit(dataset.train_images, dataset.train_labels, 1)
    assert np.isfinite(history.history['loss'][0])
    assert history.history['learning_rate'][0] == pytest.approx(0.4 * 2 / 10)
    assert all(v.dtype == 'float32' for v in trainer.model.trainable_variables)


def test_a_batch_larger_than_the_data():
    with pytest.raises(ValueError, match='at most the 7 training images'):
        assemble.build_trainer(RECIPE, toy(7))


def test_images_too_small_for_the_network():
    with pytest.raises(ValueError, match='sides of at least 8'):
        assemble.build_trainer(dataclasses.replace(RECIPE, cutout=0), toy(size=4))


@pytest.mark.thorough
def test_the_raw_model_is_the_trainers_on_raw_pixels(tmp_path):
    dataset = toy()
    trainer = assemble.build_trainer(RECIPE, dataset)
    trainer.fit(dataset.train_images, dataset.train_labels, 1)
    raw = assemble.with_normalization(trainer.model, *data.mean_std(dataset.train_images))
    raw.save(tmp_path / 'model.keras')
    loaded = keras.saving.load_model(tmp_path / 'model.keras')
    assert loaded.input_shape == (None, 8, 8, 3)
    expected = trainer.predict(dataset.test_images)
    for model in (raw, loaded):
        logits = model.predict(dataset.test_images, verbose=0)
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    score = trainer.evaluate(dataset.test_images, dataset.test_labels)
    loss, accuracy = loaded.evaluate(dataset.test_images, dataset.test_labels, verbose=0)
    assert accuracy == pytest.approx(score.accuracy, abs=1e-7)
    assert loss == pytest.approx(score.loss, rel=1e-4)  # the plain one, without smoothing


def test_the_optimizer_of_the_training_is_not_saved():
    """Callbacks have had the model compiled; its velocities would double the size of the file."""
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), 'mse')
    model.fit(np.zeros((2, 8, 8, 3)), np.zeros((2, 2)), verbose=0)
    raw = assemble.with_normalization(model, [0.0] * 3, [255.0] * 3)
    (network,) = (layer for layer in raw.layers if layer.name == model.name)
    assert not network.compiled


@pytest.mark.thorough
@pytest.mark.parametrize('name', ['page10', 'speed94'])
def test_a_model_trained_in_bfloat16_is_saved_in_float32(name, tmp_path):
    precision.set_precision('bfloat16')
    dataset = toy(size=12)
    trainer = assemble.build_trainer(small(name), dataset, precision='bfloat16')
    statistics = data.mean_std(dataset.train_images)
    names = ('a', 'bö', 'c d')
    raw = assemble.with_normalization(trainer.model, *statistics, class_names=names)
    assert keras.config.dtype_policy().name == 'mixed_bfloat16'
    raw.save(tmp_path / 'model.keras')
    precision.set_precision('float32')  # as in another process
    loaded = keras.saving.load_model(tmp_path / 'model.keras')
    assert {layer.compute_dtype for layer in loaded._flatten_layers()} == {'float32'}
    assert loaded.get_layer('class_names').class_names == names
    logits = loaded.predict(dataset.test_images, verbose=0)
    assert logits.dtype == np.float32
    expected = trainer.predict(dataset.test_images)
    assert np.abs(logits - expected).max() <= 0.05 * np.abs(expected).max()
    kept = assemble.with_normalization(trainer.model, *statistics, precision=None)
    np.testing.assert_allclose(kept.predict(dataset.test_images, verbose=0), expected, atol=1e-2)
    with pytest.raises(ValueError, match=r"^`precision` must be 'float32' or None"):
        assemble.with_normalization(trainer.model, *statistics, precision='float16')


def small(name, **changes):
    """A preset on a network and a batch that take a moment."""
    recipe = recipes.get(name).with_width(1 / 32)
    ghost_batch_size = 4 if recipe.ghost_batch_size else 0
    return dataclasses.replace(
        recipe, batch_size=8, cutout=0, ghost_batch_size=ghost_batch_size, **changes
    )


def test_every_trick_of_page10_arrives():
    dataset = toy()
    recipe = small('page10')
    trainer = assemble.build_trainer(recipe, dataset)
    found = {type(layer).__name__: layer for layer in trainer.model._flatten_layers()}
    assert found['PatchWhitening'].kernel_size == 3
    ghost, celu = found['GhostBatchNormalization'], found['CELU']
    assert (ghost.ghost_batch_size, ghost.scale, ghost.momentum) == (4, False, 0.9)
    assert celu.alpha == 0.3
    assert trainer.loss.label_smoothing == 0.2
    (group,) = trainer.optimizer.groups
    assert (group.learning_rate, group.weight_decay) == (64.0, 1 / 64)
    assert trainer.model.get_layer('stage_2').pool_first
    assert assemble.averaging(recipe, steps_per_epoch=2) == optimizers.EMA(0.99, 5)
    assert assemble.views(recipe) is evaluate.FLIP
    crop, flip = assemble.augmentations(recipe)
    images = np.random.default_rng(1).standard_normal((4, 8, 8, 3), np.float32)
    facts = (None, 3, np.array([5, 1, 0, 2]), (3, 4))
    expected = augment.in_groups(functools.partial(augment.random_crop, padding=4), 200)
    np.testing.assert_array_equal(crop(images, *facts), expected(images, *facts))
    expected = augment.in_groups(augment.random_flip, 200)
    np.testing.assert_array_equal(flip(images, *facts), expected(images, *facts))


def test_whitening_is_of_the_training_images():
    dataset = toy()
    trainer = assemble.build_trainer(small('page24', whitening=3), dataset)
    mean, std = data.mean_std(dataset.train_images)
    images = augment.normalize(dataset.train_images, mean, std)
    (filters,) = trainer.model.get_layer('whitening').weights
    expected = layers.whitening_filters(images, 3, 1e-2)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(filters), expected, atol=1e-4)


def test_the_record_with_sgd_starts_in_its_own_way():
    model = assemble.build_trainer(small('speed94_sgd'), toy(size=12)).model
    assert not keras.ops.convert_to_numpy(model.get_layer('whitening').bias).any()
    initializer = model.get_layer('classifier').kernel_initializer
    assert isinstance(initializer, layers.PyTorchUniform)


def whitening_bias_schedule(recipe, steps_per_epoch):
    rule = assemble.optimizer(recipe, steps_per_epoch)
    sgd = getattr(rule, 'others', rule)
    (group,) = (group for group in sgd.groups if group.match == 'whitening/bias')
    return group.schedule


def test_the_whitening_bias_of_the_record_with_sgd_follows_the_other_biases_and_stops():
    recipe, steps_per_epoch = recipes.get('speed94_sgd'), 48
    schedule = whitening_bias_schedule(recipe, steps_per_epoch)
    others = assemble.optimizer(recipe, steps_per_epoch)
    for step in (0, 1, 50, 110, 130, 143):
        assert float(schedule(step)) == pytest.approx(others.rate_at(step), rel=1e-6)
    # The figures of its publication: 0.3 at first, 1.5 at the peak, 1.38 at the end of epoch 3.
    rates = [float(schedule(step)) for step in (0, 110, 143)]
    assert rates == pytest.approx([0.3, 1.5, 1.38], abs=0.005)
    assert [float(schedule(step)) for step in (144, 145, 480)] == [0, 0, 0]


def test_the_whitening_bias_of_the_record_with_muon_falls_to_zero():
    schedule = whitening_bias_schedule(recipes.get('speed94_muon'), 25)
    rates = [float(schedule(step)) for step in (0, 30, 75, 76)]
    assert rates == pytest.approx([106, 106 * 45 / 75, 0, 0])


@pytest.mark.parametrize(('epochs', 'steps'), [(1, 1), (1, 2), (2, 3)])
def test_the_whitening_bias_stops_in_very_short_runs(epochs, steps):
    schedule = whitening_bias_schedule(recipes.get('speed94_sgd').with_epochs(epochs), steps)
    assert float(schedule(0)) == pytest.approx(0.3)
    assert float(schedule(epochs * steps)) == 0


@pytest.mark.thorough
def test_the_record_network_gets_its_rates():
    """Muon for the convolutions; the whitening's bias learns for three eighths of the time."""
    dataset = toy(size=12)
    recipe = small('speed94_muon')
    trainer = assemble.build_trainer(recipe, dataset)
    assert isinstance(trainer.optimizer, optimizers.Muon)
    others = trainer.optimizer.others
    assert (others.momentum, trainer.optimizer.momentum) == (0.85, 0.6)
    start = keras.ops.convert_to_numpy(trainer.model.get_layer('whitening').bias)
    trainer.fit(dataset.train_images, dataset.train_labels, 4)
    bias = keras.ops.convert_to_numpy(trainer.model.get_layer('whitening').bias)
    kernels = [v for v in trainer.model.trainable_variables if len(v.shape) == 4]
    before = [keras.ops.convert_to_numpy(kernel) for kernel in kernels]
    trainer.fit(dataset.train_images, dataset.train_labels, 5)
    after = keras.ops.convert_to_numpy(trainer.model.get_layer('whitening').bias)
    np.testing.assert_array_equal(bias, after)
    assert np.abs(bias - start).max() > 0
    for kernel, old in zip(kernels, before, strict=True):
        assert not np.array_equal(keras.ops.convert_to_numpy(kernel), old)


def test_the_record_of_2026_arrives():
    recipe, steps = recipes.get('speed94_2026'), 32
    rule = assemble.optimizer(recipe, steps)
    assert isinstance(rule, optimizers.Muon)
    assert (rule.momentum, rule.nesterov, rule.ns_steps) == (0.655, True, 3)
    assert rule.ns_coefficients == (3.4576, -4.7391, 2.0843)
    assert rule.normalize_weights.steps == tuple(recipe.normalization_steps(steps))
    assert (rule.others.momentum, rule.others.nesterov) == (0.825, True)
    # 5 % of the peak are reached between steps 258 and 259, and stay.
    rates = [float(rule.rate_at(step)) / 0.2255 for step in (0, 136, 258, 259, 283)]
    assert rates == pytest.approx([1, 0.5, 1 - 258 / 272, 0.05, 0.05], rel=1e-6)
    rates = [float(whitening_bias_schedule(recipe, steps)(step)) for step in (0, 1, 6, 7, 50)]
    peak = 0.0573 * 1536
    assert rates == pytest.approx([peak, peak * 6 / 7, peak / 7, 0, 0])
    averaging = assemble.averaging(recipe, steps)
    assert isinstance(averaging, optimizers.Lookahead)
    assert averaging.strength == pytest.approx(0.7)
    assert (averaging.every, averaging.start) == (4, 264)
    assert assemble.averaging(recipe.with_epochs(0.5), 2).start == 0
    model = assemble.network(small('speed94_2026'), (12, 12, 3), 3)
    kinds = [type(layer).__name__ for layer in model._flatten_layers()]
    assert (kinds.count('GELU'), kinds.count('SiLU')) == (1, 6)
    norms = [x for x in model._flatten_layers() if isinstance(x, layers.BatchNormalization)]
    assert {(norm.momentum, norm.scale) for norm in norms} == {(0.5566, False)}


def test_what_the_record_network_takes_for_granted_can_be_removed():
    sgd = assemble.optimizer(recipes.get('speed94_muon', removed=['muon']), 25)
    assert isinstance(sgd, optimizers.SGD)
    assert sgd.rate_at(0) == pytest.approx(0.2 * 1.5 * 2000 / 1024)
    assert sgd.groups[0].learning_rate == 64
    slow = assemble.optimizer(recipes.get('speed94_muon', removed=['frozen_scales']), 25)
    (scales,) = (group for group in slow.others.groups if group.match == '.*/gamma')
    assert (scales.learning_rate, scales.weight_decay) == (1 / 64, 64)
    assert not assemble.optimizer(
        recipes.get('speed94_muon', removed=['weight_normalization']), 25
    ).normalize_weights
    for removed in (['gelu'], ['partial_identity'], ['frozen_scales', 'muon']):
        recipe = dataclasses.replace(
            recipes.get('speed94_muon', removed=removed).with_width(1 / 32), batch_size=8
        )
        model = assemble.build_trainer(recipe, toy(size=12)).model
        kinds = {type(layer).__name__ for layer in model._flatten_layers()}
        assert ('GELU' in kinds) == (removed != ['gelu'])
        (first, *_) = (v for v in model.trainable_variables if len(v.shape) == 4)
        kernel = keras.ops.convert_to_numpy(first)
        assert (kernel[1, 1, 0, 0] == 1) == (removed != ['partial_identity'])
        paths = [variable.path for variable in model.trainable_variables]
        assert any(path.endswith('gamma') for path in paths) == ('frozen_scales' in removed)


@pytest.mark.thorough
def test_hard_examples_train_half_of_each_batch_at_its_rates():
    recipe = recipes.get('speed94', added=['hard_examples'])
    assert (recipe.batch_size, recipe.trained_images) == (1000, 500)
    assert recipe.peak_learning_rate == pytest.approx(0.0573 * 500)
    assert recipe.muon_learning_rate == pytest.approx(0.2255 * (500 / 1536) ** 0.5)
    recipe = dataclasses.replace(recipe.with_width(1 / 32).with_epochs(1), batch_size=8)
    assert recipe.proxy_widths == (1, 2, 2)
    trainer = assemble.build_trainer(recipe, toy(size=12))
    model, small = trainer.model, trainer.model.proxy
    assert (type(model), model.share) == (training.HardExamples, 0.5)
    assert all(v.path.startswith('proxy/') for v in small.variables)
    assert len(small.variables) == len(model.network.variables)
    filters = [x.get_layer('whitening').kernel for x in (model.network, small)]
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, filters))
    dataset = toy(size=12)
    trainer.fit(dataset.train_images, dataset.train_labels, recipe.epochs)
    # Both biases of the whitening stop after a fifth of the epoch, the first of two steps.
    assert [epoch for epoch, _ in trainer.freeze] == [recipe.whitening_bias_epochs]
    frozen = [v.path for v in model.variables if re.fullmatch(trainer.freeze[0][1], v.path)]
    assert frozen == ['whitening/bias', 'proxy/whitening/bias']
    saved = assemble.with_normalization(model, [0.0] * 3, [255.0] * 3)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(saved(dataset.test_images)),
        keras.ops.convert_to_numpy(model.network(dataset.test_images / np.float32(255))),
        rtol=1e-4,
        atol=1e-5,
    )
    assert not [v.path for v in saved.variables if v.path.startswith('proxy')]


def test_grey_images_vary_in_every_channel_of_the_record_network():
    """Its batch norms would divide by next to nothing in a channel that doesn't."""
    digits = data.load('digits')
    # All 24 whitened channels go through the first kernels unchanged.
    recipe = dataclasses.replace(recipes.get('speed94').for_small_data(), widths=(24, 32, 32))
    trainer = assemble.build_trainer(recipe, digits)
    images = augment.normalize(digits.train_images, *data.mean_std(digits.train_images))
    trainer.model(images[:64], training=True)
    moved = [v for v in trainer.model.variables if v.path.endswith('moving_variance')]
    assert len(moved) == 6
    for variable in moved:
        variance = (keras.ops.convert_to_numpy(variable) - 0.6) / 0.4  # it began as 1
        assert variance.min() > 0.05, variable.path


@pytest.mark.thorough
@pytest.mark.parametrize(
    'name',
    [pytest.param(name, marks=[] if name == 'speed94' else LATER) for name in recipes.PRESETS],
)
def test_every_preset_trains_an_epoch(name):
    dataset = toy(size=12)
    recipe = small(name)
    trainer = assemble.build_trainer(recipe, dataset)
    history = trainer.fit(dataset.train_images, dataset.train_labels, 1)
    assert np.isfinite(history.history['loss'][0])
    logits = trainer.predict(dataset.test_images, tta=assemble.views(recipe))
    assert logits.shape == (5, 3)


@pytest.mark.thorough
@pytest.mark.parametrize('name', [pytest.param('page10', marks=LATER), 'speed94'])
def test_growing_images_arrive_and_the_saved_model_takes_whole_ones(name):
    recipe = small(name, image_sizes=(12, 16)).with_epochs(2)
    dataset = toy(count=16, size=16)
    trainer = assemble.build_trainer(recipe, dataset)
    assert trainer.image_sizes == ((0, 12), (1, 16))
    assert trainer.model.input_shape == (None, None, None, 3)
    history = trainer.fit(dataset.train_images, dataset.train_labels, 2)
    assert np.isfinite(history.history['loss']).all()
    mean, std = data.mean_std(dataset.train_images)
    with trainer.averaged():
        raw = assemble.with_normalization(trainer.model, mean, std, input_shape=dataset.image_shape)
    assert raw.input_shape == (None, 16, 16, 3)
    logits = raw.predict(dataset.test_images, verbose=0)
    np.testing.assert_allclose(logits, trainer.predict(dataset.test_images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('mean', 'std', 'message'),
    [
        ([0.0] * 3, [0.0] * 3, '`std` must be positive and finite'),
        ([0.0] * 3, [-1.0] * 3, '`std` must be positive and finite'),
        ([np.nan] * 3, 1.0, '`mean` must be finite'),
        ([0.0] * 2, 1.0, '`mean` must be a number or one per channel'),
    ],
)
def test_normalisation_by_what_are_no_statistics(mean, std, message):
    network = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match=message):
        assemble.with_normalization(network, mean, std)
    pixels = np.full((1, 4, 4, 3), 5.0)
    found = assemble.with_normalization(network, 1.0, 2.0).predict(pixels, verbose=0)
    np.testing.assert_allclose(found, 2.0)


def test_a_lambda_is_copied_as_the_live_model_has_it():
    network = keras.Sequential(
        [keras.Input((2, 2, 3)), keras.layers.Lambda(lambda x: 2 * x), keras.layers.Flatten()]
    )
    raw = assemble.with_normalization(network, [1.0] * 3, [1.0] * 3)
    np.testing.assert_allclose(raw.predict(np.full((1, 2, 2, 3), 4.0), verbose=0), 6.0)


@pytest.mark.parametrize('inner', [False, True])
def test_a_normalisation_of_the_network_keeps_its_statistics(inner):
    """The copy in float32 had its weights, and computed without them."""
    pixels = np.random.default_rng(1).uniform(50, 200, (4, 2, 2, 3)).astype('float32')
    norm = keras.layers.Normalization()
    norm.adapt(pixels)
    steps = [keras.Input((2, 2, 3)), norm]
    network = keras.Sequential([steps[0], keras.Sequential(steps)] if inner else steps)
    raw = assemble.with_normalization(network, [0.0] * 3, [1.0] * 3)
    np.testing.assert_allclose(raw(pixels), network(pixels), atol=1e-5)


class Unregistered(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


def test_layers_that_keras_cannot_make_again():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, Unregistered()(inputs), name='mine')
    with pytest.raises(ValueError, match=r'^`model` must be one .* Received: model=mine$'):
        assemble.with_normalization(model, 1.0, 2.0)
    raw = assemble.with_normalization(model, 1.0, 2.0, precision=None)
    np.testing.assert_allclose(raw(np.full((1, 2), 5.0)), 4.0)


def test_a_model_that_does_not_know_its_input():
    model = keras.Sequential([keras.layers.Flatten()], name='unbuilt')
    with pytest.raises(ValueError, match=r'^`input_shape` must be .* Received: model=unbuilt'):
        assemble.with_normalization(model, 1.0, 2.0)
    assert assemble.with_normalization(model, 1.0, 2.0, input_shape=(2, 2, 1)).output_shape == (
        None,
        4,
    )


def test_a_name_for_each_logit():
    def named(logits, names):
        network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(logits)])
        model = assemble.with_normalization(network, [0.0] * 3, [1.0] * 3, class_names=names)
        return model.get_layer('class_names').class_names

    assert named(3, np.array(['a', 'b', 'c'])) == ('a', 'b', 'c')
    assert named(1, ['no', 'yes']) == ('no', 'yes')
    for logits, names in ((3, ['a', 'b']), (2, ['a', 'b', 'c'])):
        message = f'`class_names` must be {logits}, .* Received: {len(names)} of them'
        with pytest.raises(ValueError, match=message):
            named(logits, names)
