"""Recipes: the published settings, tricks as patches, budgets, and no framework."""

import dataclasses
import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from fenwicks import recipes
from fenwicks.recipes import PAGE, PRESETS, TRICKS, Trick, flags

FIELDS = {field.name for field in dataclasses.fields(recipes.Recipe)}


def test_fenwicks24_holds_what_its_eight_cores_did():
    """Each core added its decay to its share of the gradient, and normalized its own 64 images."""
    recipe = recipes.get('fenwicks24')
    assert recipe.weight_decay == 8 * 0.000125
    assert recipe.ghost_batch_size == 512 // 8
    gpu = recipes.get('fenwicks24_gpu')
    assert gpu == dataclasses.replace(
        recipe, name='fenwicks24_gpu', batch_size=128, weight_decay=0.000125, ghost_batch_size=0
    )
    assert gpu.steps_per_epoch(50_000) == 390


def test_fenwicks24_holds_the_published_settings():
    recipe = recipes.get('fenwicks24')
    assert (recipe.crop_padding, recipe.flip, recipe.cutout) == (4, 'random', 8)
    assert (recipe.widths, recipe.logit_scale) == ((64, 128, 256, 512), 0.125)
    assert (recipe.momentum, recipe.label_smoothing) == (0.9, 0)
    assert (recipe.batch_size, recipe.epochs, recipe.peak_learning_rate) == (512, 24, 0.4)
    # 97 steps an epoch, 2,328 in all: the log of the original run.
    assert recipe.steps_per_epoch(50_000) == 97
    assert recipe.schedule_knots(97) == [(0, 0.0), (485, 1.0), (2328, 0.0)]


def test_page10_holds_the_settings_of_the_last_row():
    recipe = recipes.get('page10')
    assert (recipe.crop_padding, recipe.flip, recipe.cutout) == (4, 'random', 0)
    assert (recipe.whitening, recipe.pool_first, recipe.ghost_batch_size) == (3, True, 32)
    assert (recipe.activation, recipe.celu_alpha, recipe.logit_scale) == ('celu', 0.3, 1 / 16)
    assert (recipe.train_scales, recipe.bias_rate, recipe.label_smoothing) == (False, 64.0, 0.2)
    assert (recipe.averaging, recipe.averaging_decay, recipe.averaging_every) == ('ema', 0.99, 5)
    assert (recipe.weight_decay, recipe.peak_learning_rate, recipe.tta) == (5e-4, 1.0, 'flip')
    assert recipe.schedule_knots(97) == [(0, 0.0), (194, 1.0), (776, 0.1), (970, 0.1)]
    # At most 200 random choices of each augmentation in an epoch.
    assert recipe.augmentation_groups == 200


def test_page80_holds_the_published_schedule():
    knots = recipes.get('page80').schedule_knots(100)
    assert knots == [(0, 0.0), (1600, 1.0), (7800, 0.1), (8000, 0.1)]


def test_speed94_muon_holds_the_record_settings():
    recipe = recipes.get('speed94_muon')
    assert recipe.steps_per_epoch(50_000) * recipe.epochs == 200
    assert recipe.whitening_images == 5000
    assert (recipe.whitening_bias_epochs, recipe.whitening_bias_schedule) == (3, 'linear')
    assert (recipe.crop_padding, recipe.flip, recipe.cutout) == (2, 'alternating', 0)
    assert (recipe.batch_size, recipe.epochs, recipe.widths) == (2000, 8, (64, 256, 256))
    assert recipe.schedule_knots(25) == [(0, 1.0), (200, 0.0)]
    assert (recipe.muon_learning_rate, recipe.muon_momentum, recipe.momentum) == (0.24, 0.6, 0.85)
    # The record adds up the losses of 2,000 images, where the mean is taken here.
    assert recipe.peak_learning_rate / 2000 == pytest.approx(0.053)
    assert recipe.peak_learning_rate * recipe.head_rate / 2000 == pytest.approx(0.67)
    assert recipe.peak_learning_rate * recipe.weight_decay == pytest.approx(2e-6 * 2000)
    assert (recipe.label_smoothing, recipe.tta) == (0.2, 'flip_translate')


def test_speed96_is_wider_deeper_and_longer():
    recipe, short = recipes.get('speed96'), recipes.get('speed94').with_epochs(56)
    assert (recipe.widths, recipe.residual) == ((128, 384, 512), True)
    assert (recipe.crop_padding, recipe.cutout, recipe.norm_momentum) == (4, 12, 0.9)
    # Half of a batch trains the network: as many images as of the short training, at its rates.
    assert (recipe.trained_images, recipe.hard_share) == (short.trained_images, 0.5) == (1000, 0.5)
    changed = {field for field, value in vars(recipe).items() if value != getattr(short, field)}
    changed -= {'name', 'widths', 'residual', 'crop_padding', 'cutout', 'norm_momentum'}
    assert (recipe.label_smoothing, short.label_smoothing) == (0.2, 0.09)
    # The tail has as many epochs as in the short training.
    longer = {'plateau_epochs', 'averaging_last_epochs', 'whitening_bias_epochs'}
    assert changed == {'batch_size', 'proxy_widths', 'label_smoothing', *longer}
    assert recipe.plateau_epochs == recipes.get('speed94').plateau_epochs


def test_speed94_sgd_in_the_units_of_its_publication():
    """Rate and decay per 1024 examples, decoupled, at momentum 0.85."""
    recipe = recipes.get('speed94_sgd')
    kilostep = 1024 * (1 + 1 / (1 - 0.85))
    assert recipe.peak_learning_rate / 1024 == pytest.approx(11.5 / kilostep, rel=1e-3)
    shrinkage = recipe.peak_learning_rate * recipe.weight_decay
    assert shrinkage == pytest.approx(0.0153 * 1024 / kilostep, rel=1e-3)
    knots = recipe.schedule_knots(48)
    assert knots == [(0, 0.2), (110, 1.0), (480, 0.07)]
    assert (recipe.whitening_bias_epochs, recipe.whitening_bias_schedule) == (3, 'common')


def test_every_preset_can_be_got_by_its_name():
    for name in PRESETS:
        recipe = recipes.get(name)
        assert recipe.name == name
        assert recipe.schedule_knots(100)[-1][0] == recipe.total_steps(100)
        assert recipe.total_steps(32) == round(32 * recipe.epochs)
        with pytest.raises(dataclasses.FrozenInstanceError):
            recipe.epochs = 1


def test_each_row_of_the_page_presets_adds_one_trick():
    rows = [preset for name, preset in PRESETS.items() if name.startswith('page')][:-2]
    for before, after in itertools.pairwise(rows):
        assert after.tricks[:-1] == before.tricks
    assert PRESETS['page10'].tricks == rows[-1].tricks


@pytest.mark.parametrize('name', TRICKS)
def test_a_trick_sets_fields_of_a_recipe_to_new_values(name):
    trick = TRICKS[name]
    assert set(trick.patch) <= FIELDS - {'name', 'epochs', 'batch_size', 'cutout'}
    bases = [preset.base for preset in PRESETS.values()]
    for patch in (trick.patch, trick.on_speednet or trick.patch):
        assert any(
            getattr(base, field) != value for base in bases for field, value in patch.items()
        )
    assert trick.network in ('', 'resnet9', 'speednet')
    assert TRICKS[name].summary
    assert TRICKS[name].symbol


@pytest.mark.parametrize('name', [name for name, preset in PRESETS.items() if preset.tricks])
def test_the_tricks_of_a_preset_touch_different_fields_in_any_order(name):
    preset = PRESETS[name]
    touched = [field for trick in preset.tricks for field in TRICKS[trick].patch_on(preset.base)]
    assert len(touched) == len(set(touched))
    assert not set(touched) & set(preset.budget)
    base = dataclasses.replace(preset.base, **preset.budget)
    assert recipes.patched(base, preset.tricks[::-1], name) == recipes.get(name)


@pytest.mark.parametrize('name', [name for name, preset in PRESETS.items() if preset.tricks])
def test_each_trick_of_a_preset_can_be_removed_and_changes_something(name):
    for trick in PRESETS[name].tricks:
        without = recipes.get(name, removed=[trick])
        assert dataclasses.replace(without, name=name) != recipes.get(name), trick
    if all(not TRICKS[trick].network for trick in PRESETS[name].tricks):
        return
    with pytest.raises(ValueError) as raised:
        recipes.get('page24', ['muon'])
    assert str(raised.value) == (
        "the trick 'muon' is for a speednet. Received: a recipe whose network is resnet9"
    )


def test_speed94_muon_without_muon_is_sgd_at_the_rates_of_its_record():
    """Per image they are those of `speed94_sgd`, which has another batch size and no plateau."""
    plain, record = recipes.get('speed94_muon', removed=['muon']), recipes.get('speed94_sgd')
    assert plain.muon_learning_rate == 0
    assert plain.peak_learning_rate / 2000 == pytest.approx(record.peak_learning_rate / 1024)
    for field in ('weight_decay', 'bias_rate', 'head_rate', 'momentum', 'start_share',
                  'head_initializer', 'logit_scale', 'whitening_bias_schedule'):  # fmt: skip
        assert getattr(plain, field) == getattr(record, field), field
    assert plain.warmup_epochs / plain.epochs == pytest.approx(record.warmup_epochs / record.epochs)


def test_speed94_2026_holds_the_published_settings():
    recipe = recipes.get('speed94_2026')
    steps = recipe.steps_per_epoch(50_000)
    assert (recipe.batch_size, recipe.epochs, steps, recipe.total_steps(steps)) == (
        *(1536, 8.875, 32, 284),
    )
    # The line from 1 at the start to 0 after 8.5 epochs is at 5 % after 8.075.
    assert recipe.schedule_knots(steps) == [(0, 1.0), (pytest.approx(258.4), 0.05), (284, 0.05)]
    assert recipe.image_size_epochs() == ((0, 24), (3, 28), (6, 32))
    # The record adds up the losses of 1,536 images, where the mean is taken here.
    rate = recipe.peak_learning_rate
    assert rate / 1536 == pytest.approx(0.0573)
    assert rate * recipe.head_rate / 1536 == pytest.approx(0.5415)
    assert rate * recipe.weight_decay == pytest.approx(1.0418e-6 * 1536)
    assert (recipe.bias_rate, recipe.momentum, recipe.nesterov) == (1, 0.825, True)
    assert (recipe.muon_learning_rate, recipe.muon_momentum, recipe.muon_steps) == (
        *(0.2255, 0.655, 3),
    )
    assert recipe.muon_coefficients == (3.4576, -4.7391, 2.0843)
    assert (recipe.whitening_bias_epochs, recipe.whitening_bias_schedule) == (7 / 32, 'linear')
    assert (recipe.activation, recipe.first_activation) == ('silu', 'gelu')
    assert (recipe.label_smoothing, recipe.norm_momentum) == (0.09, 0.5566)
    assert (recipe.crop_padding, recipe.flip, recipe.cutout) == (2, 'alternating', 0)
    assert recipe.augmentation_steps()[-1] == (
        *('random_jitter', {'brightness': 0.1399, 'contrast': 0.1308}),
    )
    # From 8 steps before the end of the fall, every 4 steps, 0.7 of the average are kept.
    assert (recipe.averaging, recipe.averaging_every, recipe.averaging_power) == (
        *('lookahead', 4, 0),
    )
    assert recipe.averaging_decay**4 == pytest.approx(0.7)
    assert 284 - recipe.averaging_last_epochs * steps == 8.5 * steps - 8


def test_speed94_is_the_record_of_2026_in_smaller_batches():
    ours, published = recipes.get('speed94'), recipes.get('speed94_2026')
    share = ours.batch_size / published.batch_size
    assert (ours.batch_size, ours.steps_per_epoch(50_000), ours.total_steps(50)) == (1000, 50, 444)
    assert ours.peak_learning_rate / 1000 == pytest.approx(published.peak_learning_rate / 1536)
    assert ours.muon_learning_rate == pytest.approx(published.muon_learning_rate * share**0.5)
    assert ours.norm_momentum == pytest.approx(published.norm_momentum**share)
    changed = {field for field in FIELDS if getattr(ours, field) != getattr(published, field)}
    assert changed == {
        *('name', 'batch_size', 'peak_learning_rate', 'muon_learning_rate', 'norm_momentum'),
        'tta',
    }
    assert ours.tta == 'doubtful'


def test_rates_of_a_trick_are_for_the_batch_size_of_its_recipe():
    record = recipes.get('speed94_muon')
    base = dataclasses.replace(PRESETS['speed94_muon'].base, batch_size=500)
    small = recipes.patched(base, PRESETS['speed94_muon'].tricks, 'small')
    assert small.peak_learning_rate == pytest.approx(record.peak_learning_rate / 4)
    assert small.muon_learning_rate == pytest.approx(record.muon_learning_rate / 2)


def test_the_steps_before_which_kernels_are_scaled():
    """Counted as published: from 1, and progress to the end of the fall at 272 steps."""
    expected, last = [], 0
    for count in range(1, 285):
        if count - last >= 2 + int(15 * count / 272):
            expected.append(count - 1)
            last = count
    assert recipes.get('speed94_2026').normalization_steps(32) == expected
    assert recipes.get('speed94_muon').normalization_steps(25) == list(range(200))


def test_every_symbol_of_a_trick_exists():
    import fenwicks

    for trick in TRICKS.values():
        found = fenwicks
        for part in trick.symbol.split('(')[0].split('.'):
            found = getattr(found, part)


def test_tricks_can_be_added_and_removed():
    page24, page10 = recipes.get('page24'), recipes.get('page10')
    more = recipes.get('page24', added=['label_smoothing', 'celu'])
    assert more == dataclasses.replace(
        page24, name='page24+label_smoothing+celu', label_smoothing=0.2, activation='celu'
    )
    fewer = recipes.get('page10', removed=['frozen_scales'])
    assert fewer == dataclasses.replace(
        page10,
        name='page10-frozen_scales',
        train_scales=True,
        celu_alpha=0.075,
        logit_scale=0.125,
        bias_rate=1.0,
    )
    swapped = recipes.get('page10', added=['six_view_tta'], removed=['flip_tta'])
    assert swapped.tta == 'flip_translate'
    assert swapped.name == 'page10-flip_tta+six_view_tta'


@pytest.mark.parametrize(
    ('added', 'removed', 'message'),
    [
        (['magic'], [], f"a trick must be one of {', '.join(TRICKS)}. Received: 'magic'"),
        ([], ['magic'], f"a trick must be one of {', '.join(TRICKS)}. Received: 'magic'"),
        (['celu'], [], '`added` must name tricks that page10 lacks. Received: celu'),
        (
            ['six_view_tta'],
            [],
            "tricks must set different fields. Received: 'flip_tta' and 'six_view_tta', "
            'which both set `tta`',
        ),
        (
            [],
            ['alternating_flip'],
            f'`removed` must name tricks of page10 ({", ".join(PRESETS["page10"].tricks)}). '
            'Received: alternating_flip',
        ),
        (
            [],
            ['celu', 'celu'],
            '`added` and `removed` must name a trick once. Received: celu',
        ),
        (
            ['celu'],
            ['celu'],
            '`added` and `removed` must name a trick once. Received: celu',
        ),
    ],
)
def test_tricks_that_do_not_fit(added, removed, message):
    with pytest.raises(ValueError) as raised:
        recipes.get('page10', added, removed)
    assert str(raised.value) == message


def test_a_trick_that_does_nothing():
    smoothed = dataclasses.replace(PAGE, label_smoothing=0.2)
    with pytest.raises(ValueError) as raised:
        recipes.patched(smoothed, ['label_smoothing'], 'twice')
    assert str(raised.value) == (
        "the trick 'label_smoothing' must change something. Received: a recipe whose "
        'label_smoothing has that value already'
    )


def test_a_speednet_whitens_in_its_own_way():
    with pytest.raises(ValueError) as raised:
        recipes.get('speed94', ['whitening'])
    assert str(raised.value) == (
        '`whitening` of a speednet must be its own, of 2x2 patches. Received: whitening=3'
    )


def test_a_resnet9_has_shortcuts_of_its_own():
    with pytest.raises(ValueError) as raised:
        dataclasses.replace(PAGE, residual=True)
    assert str(raised.value) == (
        '`residual` must be False unless the network is a speednet. '
        'Received: residual=True, network=resnet9'
    )


def test_unknown_recipe():
    message = f'`name` must be one of {", ".join(PRESETS)}. Received: name=fast'
    with pytest.raises(ValueError) as raised:
        recipes.get('fast')
    assert str(raised.value) == message
    with pytest.raises(ValueError, match=r'`name` must be one of .*Received: name=\[\]'):
        recipes.get([])
    with pytest.raises(ValueError, match=r'`added` must be a sequence of names of tricks.'):
        recipes.get('page10', added='celu')


@pytest.mark.parametrize('fields', [None, [], 'page10', PAGE])
def test_fields_that_are_no_dict(fields):
    with pytest.raises(ValueError, match=r'^a recipe must be made of a dict of its fields. '):
        recipes.Recipe.from_dict(fields)


def test_a_setting_that_is_no_choice():
    with pytest.raises(ValueError) as raised:
        dataclasses.replace(PAGE, activation='step')
    assert str(raised.value) == (
        '`activation` of a recipe must be one of relu, celu, gelu, silu. '
        "Received: activation='step'"
    )


def test_ghost_batches_divide_the_batch():
    with pytest.raises(ValueError) as raised:
        recipes.get('page10').with_batch_size(48)
    message = '`ghost_batch_size` must divide the batch of 48. Received: ghost_batch_size=32'
    assert str(raised.value) == message


def test_ghost_batches_divide_what_each_of_two_networks_sees():
    fields = {'batch_size': 64, 'ghost_batch_size': 16, 'proxy_widths': (2, 2, 2, 2)}
    recipe = dataclasses.replace(PAGE, **fields)  # 32 hard ones; 16 train the proxy, 48 do not
    with pytest.raises(ValueError, match=r'^`ghost_batch_size` must divide the batch of 19. '):
        dataclasses.replace(recipe, hard_share=0.3)
    with pytest.raises(ValueError, match=r'^`ghost_batch_size` must divide the batch of 8. '):
        dataclasses.replace(recipe, proxy_share=1 / 8)


def test_the_listing_names_every_recipe_and_trick():
    words = recipes.listing().split()
    assert set(PRESETS) | set(TRICKS) <= set(words)
    assert 'whitening=3' in words


def test_the_schedule_stretches_with_the_epochs():
    page10 = recipes.get('page10')
    short = page10.with_epochs(5)
    assert short == dataclasses.replace(page10, epochs=5, warmup_epochs=1, plateau_epochs=1)
    assert short.schedule_knots(100) == [(0, 0.0), (100, 1.0), (400, 0.1), (500, 0.1)]
    assert short.with_epochs(10) == page10
    assert recipes.get('speed94_muon').with_epochs(18).whitening_bias_epochs == 3 * 18 / 8


@pytest.mark.parametrize('epochs', [*range(1, 100), 0.1, 0.3, 1e-3, 1e5])
def test_a_schedule_that_fills_the_epochs_stretches(epochs):
    """Rounded, the parts were longer than the whole."""
    page10 = recipes.get('page10')
    for warmup in (0, 1, 3, 7, 9.9, 10):
        full = dataclasses.replace(page10, warmup_epochs=warmup, plateau_epochs=10 - warmup)
        found = full.with_epochs(epochs)
        assert found.warmup_epochs == pytest.approx(warmup * epochs / 10)
        assert found.plateau_epochs == pytest.approx((10 - warmup) * epochs / 10, abs=1e-9 * epochs)
    draw = np.random.default_rng(int(epochs))
    for warmup in draw.uniform(0, 10, 200):
        dataclasses.replace(page10, warmup_epochs=warmup, plateau_epochs=10 - warmup).with_epochs(
            epochs * draw.uniform(0.5, 2)
        )
    for whole in (3, 7, 8.3, 9.875):
        averaged = dataclasses.replace(
            page10.with_epochs(whole), averaging='lookahead', averaging_last_epochs=whole
        )
        assert averaged.with_epochs(epochs).averaging_last_epochs == pytest.approx(epochs)


def test_the_batch_size_changes_nothing_else():
    small = PAGE.with_batch_size(128)
    assert small == dataclasses.replace(PAGE, batch_size=128)


def test_the_width_scales_every_stage():
    assert PAGE.with_width(0.25).widths == (16, 32, 64, 128)
    assert PAGE.with_width(0.001).widths == (1, 1, 1, 1)
    for factor in (0, -1, float('nan'), float('inf')):
        with pytest.raises(ValueError) as raised:
            PAGE.with_width(factor)
        message = f'`factor` must be a number in (0, 2**20). Received: factor={factor}'
        assert str(raised.value) == message


@pytest.mark.parametrize(('epochs', 'steps'), [(1, 1), (1, 2), (1, 3), (2, 1), (3, 2), (100, 97)])
@pytest.mark.parametrize('name', PRESETS)
def test_knots_rise_strictly_however_short_the_run(name, epochs, steps):
    knots = recipes.get(name).with_epochs(epochs).schedule_knots(steps)
    places = [step for step, _ in knots]
    assert places[0] == 0
    assert all(before < after for before, after in itertools.pairwise(places))
    assert [share for _, share in knots] == [
        share for _, share in recipes.get(name).schedule_knots(1000)
    ]
    if epochs * steps > 10:
        assert places[-1] == epochs * steps


@pytest.mark.parametrize(
    ('name', 'kind', 'values'),
    [
        ('epochs', r'number in (0, 2**20)', [0, -3, -2.5, True, '6', None, math.inf]),
        ('batch_size', 'positive integer', [0, -3, 2.5, 3.0, True, '6', None]),
    ],
)
def test_budgets_that_are_none(name, kind, values):
    for value in values:
        with pytest.raises(ValueError) as raised:
            getattr(PAGE, f'with_{name}')(value)
        assert str(raised.value) == f'`{name}` must be a {kind}. Received: {name}={value!r}'


def test_parts_of_an_epoch():
    half = PAGE.with_epochs(2.5)
    assert (half.epochs, half.warmup_epochs) == (2.5, pytest.approx(5 * 2.5 / 24))
    assert [half.total_steps(steps) for steps in (1, 2, 10, 97)] == [3, 5, 25, 243]
    assert PAGE.with_epochs(0.001).total_steps(10) == 1
    assert type(PAGE.with_epochs(3.0).epochs) is int


def test_a_batch_must_not_exceed_the_data():
    assert PAGE.steps_per_epoch(512) == 1
    assert PAGE.steps_per_epoch(1023) == 1
    with pytest.raises(ValueError, match=r'at most the 511 training .* batch_size=512$'):
        PAGE.steps_per_epoch(511)


def test_no_framework_is_imported():
    """The package of recipes alone, since fenwicks's own __init__ imports Keras."""
    code = (
        'import sys, types\n'
        'fenwicks = types.ModuleType("fenwicks")\n'
        f'fenwicks.__path__ = [{str(pytest.importorskip("fenwicks").__path__[0])!r}]\n'
        'sys.modules["fenwicks"] = fenwicks\n'
        'import fenwicks.recipes\n'
        'print(sorted({"keras", "tensorflow", "jax", "torch", "numpy"} & set(sys.modules)))'
    )
    output = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert output.stdout.strip() == '[]', output.stderr


def test_small_data_keeps_the_rate_per_image():
    """A summed gradient of an eighth of the images, at an eighth of the rate."""
    small = PAGE.for_small_data()
    assert small == dataclasses.replace(PAGE, batch_size=64, peak_learning_rate=0.4 * 64 / 512)
    record = recipes.get('speed94_muon')
    assert record.for_small_data() == dataclasses.replace(
        record, batch_size=64, peak_learning_rate=0.053 * 64
    )
    assert [PAGE.for_small_data(count).batch_size for count in (1, 57, 128, 1000, 4096, 10**6)] == [
        *(1, 4, 16, 64, 512, 512),
    ]
    assert PAGE.for_small_data(10**6) == PAGE
    ghosts = [recipes.get('page10').for_small_data(count) for count in (72, 512, 10**6)]
    assert [(few.batch_size, few.ghost_batch_size) for few in ghosts] == [
        *((8, 8), (64, 32), (512, 32)),
    ]
    with pytest.raises(ValueError, match='`train_images` must be'):
        PAGE.for_small_data(0)


@pytest.mark.parametrize(('ghost', 'expected'), [(48, 32), (3, 2), (192, 64), (384, 64), (0, 0)])
def test_ghost_batches_of_small_data_are_powers_of_two(ghost, expected):
    page10 = dataclasses.replace(
        recipes.get('page10'), ghost_batch_size=ghost, batch_size=384, augmentation_groups=0
    )
    small = page10.for_small_data(512)
    assert (small.batch_size, small.ghost_batch_size) == (64, expected)


def test_ghost_batches_of_small_data_divide_what_each_network_sees():
    """Of 64 images the network is trained on 32, its proxy on 16, beside 48 others."""
    recipe = recipes.get('speed96')
    recipe = dataclasses.replace(recipe, batch_size=2048, ghost_batch_size=32)
    assert recipe.for_small_data().ghost_batch_size == 16


@pytest.mark.parametrize('name', PRESETS)
def test_a_recipe_comes_back_from_json(name):
    recipe = recipes.get(name)
    fields = json.loads(json.dumps(dataclasses.asdict(recipe)))
    assert recipes.Recipe.from_dict(fields) == recipe


# What was hidden in the assembly before it had fields of its own.
ADDED_FIELDS = (
    *('augmentations', 'whitening_images', 'whitening_bias_initializer', 'head_initializer'),
    *('nesterov', 'normalize_weights', 'averaging_power', 'whitening_bias_schedule'),
    *('kernel_initializer', 'scale_rate', 'proxy_widths', 'hard_share', 'proxy_share'),
)


EARLIER = [
    name for name in PRESETS if name not in ('speed94', 'speed94_2026', 'speed94_muon', 'speed96')
]  # those had no such recipes


@pytest.mark.parametrize('name', EARLIER)
def test_a_recipe_of_an_earlier_version_comes_back(name):
    fields = dataclasses.asdict(recipes.get(name))
    for field in ADDED_FIELDS:
        del fields[field]
    former = dataclasses.replace(recipes.get(name), whitening_bias_schedule='linear')
    assert recipes.Recipe.from_dict(fields) == former


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'colour': 1}, r'^a recipe must have no fields but name, .*Received: colour$'),
        ({'epochs': '9'}, r"^`epochs` must be a number in .0, 2\*\*20.. Received: epochs='9'$"),
        ({'batch_size': 2.5}, '^`batch_size` must be a positive integer. '),
        ({'momentum': 1.5}, r'^`momentum` must be a number in \[0, 1\). Received: momentum=1.5$'),
        ({'peak_learning_rate': math.nan}, '^`peak_learning_rate` must be a finite number >= 0. '),
        ({'train_scales': 1}, '^`train_scales` must be True or False. Received: train_scales=1$'),
        ({'widths': 64}, '^`widths` must be a tuple. Received: widths=64$'),
        ({'widths': [64, 0]}, '^`widths` must be a positive integer. Received: widths=0$'),
        ({'cutout': -1}, '^`cutout` must be an integer >= 0. Received: cutout=-1$'),
        ({'logit_scale': 'x'}, "^`logit_scale` must be a finite number. Received: logit_scale='x'"),
        ({'name': ''}, "^`name` must be a text. Received: name=''$"),
        ({'activation': ['relu']}, '^`activation` of a recipe must be one of relu, '),
        ({'head_initializer': 'unit'}, '^`head_initializer` must be pytorch unless the network is'),
        ({'whitening_bias_epochs': 1}, '^`whitening_bias_epochs` must be 0 unless the network is'),
        ({'warmup_epochs': 30}, '^`warmup_epochs` and `plateau_epochs` must fit into 24 epochs. '),
        ({'augmentations': ['random_crop(4)']}, '^`augmentations` must be calls with named '),
        ({'augmentations': ['import os']}, '^`augmentations` must be calls with named settings, '),
        ({'augmentations': ['f(x=y)']}, '^`augmentations` must be calls with named settings, '),
        ({'augmentations': [3]}, '^`augmentations` must be calls with named settings, '),
        ({'augmentations': ['f', 'f(x=1)']}, '^`augmentations` must name a transform once. '),
    ],
)
def test_fields_that_break_a_rule(changes, message):
    with pytest.raises(ValueError, match=message):
        recipes.Recipe.from_dict({**dataclasses.asdict(PAGE), **changes})


def test_a_recipe_lacks_a_field():
    with pytest.raises(ValueError, match=r'Received: none called batch_size$'):
        recipes.Recipe.from_dict({'name': 'mine'})


def test_numbers_of_other_libraries_become_plain():
    recipe = dataclasses.replace(
        PAGE, epochs=np.int64(3), warmup_epochs=np.float32(0.5), nesterov=np.True_
    )
    assert (type(recipe.epochs), type(recipe.warmup_epochs)) == (int, float)
    assert recipe.nesterov is True


def test_the_augmentations_in_their_order():
    recipe = dataclasses.replace(PAGE, augmentations=('random_jitter(brightness=0.14)',))
    assert recipe.augmentation_steps() == [
        ('random_crop', {'padding': 4}),
        ('random_flip', {}),
        ('random_jitter', {'brightness': 0.14}),
        ('random_cutout', {'size': 8}),
    ]


def test_tricks_that_are_transforms_go_together_in_any_order(monkeypatch):
    for name in ('b', 'a'):
        trick = Trick({'augmentations': (f'random_{name}',)}, 'draws', 'augment', '')
        monkeypatch.setitem(TRICKS, name, trick)
    both = recipes.get('page24', ['a', 'b'])
    assert both.augmentations == recipes.get('page24', ['b', 'a']).augmentations
    assert both.augmentations == ('random_a', 'random_b')


def test_recipes_from_files(tmp_path):
    python = tmp_path / 'mine.py'
    python.write_text("from fenwicks import recipes\nrecipe = recipes.get('page10')\n")
    page10 = recipes.load(python)
    assert page10 == recipes.get('page10')
    alone, result = tmp_path / 'recipe.json', tmp_path / 'result.json'
    alone.write_text(json.dumps(dataclasses.asdict(page10)))
    fields = {'recipe': dataclasses.asdict(page10), 'dataset': 'cifar10'}
    result.write_text(json.dumps({'recipe': 'page10', 'settings': fields}))
    assert recipes.load(alone) == recipes.load(str(result)) == page10


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('a.txt', '', '^`path` must end in .py or .json. '),
        ('a.py', '', r'a\.py must define `recipe`, .*Received: recipe of type NoneType$'),
        ('a.py', 'recipe = 1 / 0', r'a\.py must be a Python file that runs. .*ZeroDivisionError: '),
        ('a.py', 'recipe = (', r'a\.py must be a Python file that runs. Received: SyntaxError: '),
        ('a.py', 'raise SystemExit', r'a\.py must be a Python file that runs. '),
        ('a.json', '', r'a\.json must hold the fields of a recipe as JSON. '),
        ('a.json', '{"name": "page', r'a\.json must hold the fields of a recipe as JSON. '),
        ('a.json', '[1]', r'a\.json must hold the fields of a recipe as JSON. Received: a list$'),
        ('a.json', '{"settings": {}}', r'a\.json must hold .* Received: no fields of a recipe$'),
        ('a.json', '{"name": "x"}', r'a\.json must hold .* none called batch_size$'),
        ('a.json', '[' * 100_000, r'a\.json must hold the fields of a recipe as JSON. '),
    ],
)
def test_files_without_a_recipe(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        recipes.load(tmp_path / name)
    assert '\n' not in str(raised.value)


def test_a_file_that_is_missing(tmp_path):
    for name in ('a.py', 'a.json'):
        with pytest.raises(FileNotFoundError):
            recipes.load(tmp_path / name)


@pytest.mark.parametrize(
    ('sizes', 'epochs', 'expected'),
    [
        ((), 9, ()),
        ((24, 28, 32), 9, ((0, 24), (3, 28), (6, 32))),
        ((24, 28, 32), 10, ((0, 24), (3, 28), (7, 32))),
        ((24, 24, 24, 28, 28, 28, 32, 32), 8, ((0, 24), (3, 28), (6, 32))),
        ((24, 28, 32), 2, ((0, 24), (1, 32))),
        ((24, 28, 32), 1, ((0, 28),)),
        ((16,), 3, ((0, 16),)),
        ((24, 28, 32), 8.875, ((0, 24), (3, 28), (6, 32))),
        ((24, 28, 32), 0.5, ((0, 32),)),
    ],
)
def test_the_epochs_of_image_sizes(sizes, epochs, expected):
    recipe = dataclasses.replace(PAGE, epochs=24, image_sizes=sizes).with_epochs(epochs)
    assert recipe.image_size_epochs() == expected


def test_no_image_sizes_can_be_set():
    assert flags.parse_settings(['image_sizes=', 'proxy_widths=', 'augmentations=']) == {
        'image_sizes': (),
        'proxy_widths': (),
        'augmentations': (),
    }
    with pytest.raises(ValueError, match='`set` must give `widths` integers with commas'):
        flags.parse_settings(['widths='])


def test_image_sizes_are_positive_integers():
    for sizes in ((0, 32), (24.5,), ('24',), 24):
        with pytest.raises(ValueError, match=r'^`image_sizes` must be '):
            dataclasses.replace(PAGE, image_sizes=sizes)


@pytest.mark.parametrize('warmup', [0, 1])
def test_a_constant_rate_has_its_normalizations(warmup):
    recipe = recipes.get('speed94')
    constant = dataclasses.replace(
        recipe,
        epochs=4,
        warmup_epochs=warmup,
        plateau_epochs=4 - warmup,
        image_sizes=(),
        normalize_every=2,
        normalize_every_growth=4,
    )
    steps = [-1, *constant.normalization_steps(50)]
    assert steps[1] == 1
    assert [b - a for a, b in itertools.pairwise(steps)][-1] == 5  # 2 + 4 * nearly 1
