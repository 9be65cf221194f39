"""The benchmarks: the PyTorch side against closed forms, the profile, the scripts at tiny sizes."""

import json
import types

import keras
import numpy as np
import pytest
from scripts import ROOT, call, loaded, refused

import fenwicks as fw
from fenwicks import recipes, runlog

FOLDER = ROOT / 'examples' / 'benchmarks'
SMALL = ('--dataset=digits', '--device=cpu', '--precision=float32', '--width=0.0625')
SMALL += ('--limit=64', '--test_limit=20', '--batch_size=32', '--epochs=1')


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    """The scripts find one another, as they do when they are run."""
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def torch():
    torch = pytest.importorskip('torch')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield torch
    torch.set_num_threads(threads)


def pictures(count=96, seed=0):
    """Images whose class is their colour, with some noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count, np.int32)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [180, 180, 60]])
    images = colours[labels][:, None, None] + random.normal(0, 25, (count, 32, 32, 3))
    return images.clip(0, 255).astype(np.uint8), labels


def trainer(compiled=False, **settings):
    from pytorch_speed94 import Recipe
    from pytorch_trainer import Trainer

    images, labels = pictures()
    recipe = {'batch_size': 32, 'epochs': 4, 'widths': (4, 8, 8), **settings}
    return Trainer(images, labels, 4, Recipe(**recipe), compiled=compiled)


def test_whitened_patches_are_uncorrelated(torch):
    from pytorch_speed94 import patch_covariance, whitening_filters

    mix = torch.randn(3, 3, 1, 1)
    images = torch.nn.functional.conv2d(torch.randn(200, 3, 8, 8), mix)
    filters = whitening_filters(images, epsilon=0.01)
    assert filters.shape == (24, 3, 2, 2)
    torch.testing.assert_close(filters[12:], -filters[:12])
    rows = filters[:12].flatten(1).double()
    covariance = rows @ patch_covariance(images) @ rows.T
    values = torch.linalg.eigvalsh(patch_covariance(images)).flip(0)
    torch.testing.assert_close(covariance, torch.diag(values / (values + 0.01)), atol=1e-4, rtol=0)


def test_a_patch_covariance_by_hand(torch):
    from pytorch_speed94 import patch_covariance

    images = torch.randn(5, 2, 4, 4)
    patches = [
        image[:, top : top + 2, left : left + 2].flatten()
        for image in images
        for top in range(3)
        for left in range(3)
    ]
    expected = np.cov(np.stack(patches), rowvar=False, bias=True)
    np.testing.assert_allclose(patch_covariance(images), expected, atol=1e-6)


def test_the_network_is_the_librarys(torch):
    from pytorch_speed94 import Network

    network = Network(torch.randn(24, 3, 2, 2))
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained == 1_971_352  # as fenwicks.models.speednet says of itself
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert (len(network.kernels()), len(network.biases())) == (6, 6)
    first = network.groups[0].conv1.weight
    for i in range(24):  # the first filters are the identity
        expected = torch.zeros(24, 3, 3)
        expected[i, 1, 1] = 1
        torch.testing.assert_close(first[i], expected)
    assert first[24:].abs().min() > 0
    assert network.head.std().item() == pytest.approx(1, abs=0.05)


def test_arithmetic_in_bfloat16_leaves_the_weights_in_float32(torch):
    from pytorch_speed94 import Network

    network = Network(torch.randn(24, 3, 2, 2), widths=(4, 8, 8))
    logits = network(torch.randn(2, 3, 32, 32, dtype=torch.bfloat16))
    assert logits.dtype == torch.float32
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def newton_schulz(matrix, steps):
    """The iteration on singular values alone, which is all that it changes."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u * s @ v


@pytest.mark.parametrize('shape', [(4, 6, 3, 3), (8, 1, 2, 2)])
def test_muon_over_some_steps(torch, shape):
    from pytorch_speed94 import Muon

    random = np.random.default_rng(0)
    weight, velocity = random.normal(size=shape), np.zeros(shape)
    kernel = torch.nn.Parameter(torch.tensor(weight))
    optimizer = Muon([kernel], 0.24, 0.6, 3, torch.float64)
    for _ in range(4):
        gradient = random.normal(size=shape)
        kernel.grad = torch.tensor(gradient)
        optimizer.step()
        velocity = 0.6 * velocity + gradient
        update = newton_schulz((gradient + 0.6 * velocity).reshape(shape[0], -1), 3)
        weight = weight * np.sqrt(shape[0]) / np.linalg.norm(weight)
        weight = weight - 0.24 * update.reshape(shape)
        np.testing.assert_allclose(kernel.detach(), weight, rtol=1e-6, atol=1e-9)


def test_shifts_and_mirror_images(torch):
    one = trainer()
    one._begin_epoch(0)
    images, _ = pictures()
    mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
    np.testing.assert_allclose(one.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(one.std, std, rtol=1e-6)
    chosen = torch.arange(12)
    found = one._augmented(chosen).permute(0, 2, 3, 1) * one.std + one.mean
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode='reflect')
    shifts = set()
    for i in range(12):
        image = padded[i, :, ::-1] if one._mirrored[i] else padded[i]
        for top in range(5):
            for left in range(5):
                if np.allclose(found[i], image[top : top + 32, left : left + 32], atol=1e-2):
                    shifts.add((i, top, left))
    assert {i for i, _, _ in shifts} == set(range(12))
    assert len({(top, left) for _, top, left in shifts}) > 5


def test_every_image_is_mirrored_every_other_epoch(torch):
    one = trainer()
    mirrored = []
    for epoch in range(3):
        one._begin_epoch(epoch)
        mirrored.append(one._mirrored.numpy())
    assert 20 < mirrored[0].sum() < 76
    np.testing.assert_array_equal(mirrored[1], ~mirrored[0])
    np.testing.assert_array_equal(mirrored[2], mirrored[0])


def test_rates_fall_in_a_line_and_the_whitening_bias_stops_early(torch):
    # 3 steps per epoch, 12 in all; the bias learns for 9.
    one = trainer(whitening_bias_epochs=3)
    for step, shares in ((0, (1, 1)), (6, (1 / 3, 1 / 2)), (9, (0, 1 / 4)), (11, (0, 1 / 12))):
        one._set_rates(step)
        rates = [group['lr'] for group in one.sgd.param_groups + one.muon.param_groups]
        bias, rest = shares
        assert rates == pytest.approx([0.053 * bias, 0.053 * rest, 0.67 * rest, 0.24 * rest])
        assert one.model.whitening.bias.requires_grad == (step < 9)
    decays = [group['weight_decay'] for group in one.sgd.param_groups]
    assert decays == pytest.approx([2e-6 * 32 / 0.053] * 2 + [2e-6 * 32 / 0.67])


def test_pytorch_learns(torch):
    one = trainer()
    steps = []
    whitening = one.model.whitening.weight.clone()
    one.run(on_step=lambda *step: steps.append(step))
    assert [number for number, _ in steps] == list(range(1, 13))
    assert steps[-1][1] < steps[0][1] - 0.3
    images, labels = pictures(seed=1)
    assert one.accuracy(images, labels) > 0.9
    torch.testing.assert_close(one.model.whitening.weight, whitening)
    scales = [m.weight for m in one.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all((scale == 1).all() for scale in scales)


def test_six_views(torch):
    one = trainer()
    one.run(3)
    images, _ = pictures(4, seed=2)
    views = []
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='reflect')
    for view in (images, padded[:, :-2, :-2], padded[:, 2:, 2:]):
        views += [one.predict(view, tta=False), one.predict(view[:, :, ::-1].copy(), tta=False)]
    expected = np.einsum('v,vnc->nc', [1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8], views)
    np.testing.assert_allclose(one.predict(images), expected, rtol=1e-4, atol=1e-5)


def test_warming_up_for_the_compiler_leaves_no_trace(torch, monkeypatch):
    compiled = []

    def compile_nothing(function, mode=None):
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, 'compile', compile_nothing)
    plain, warm = trainer(), trainer(compiled=True)
    assert len(compiled) == 2
    assert warm.compile_seconds > 0
    for one in (plain, warm):
        one.run(5)
    assert warm.losses == plain.losses


def test_a_batch_larger_than_the_data(torch):
    with pytest.raises(ValueError, match='`batch_size` must be at most the 96 training images'):
        trainer(batch_size=97)


def test_the_recipe_is_the_librarys():
    pytest.importorskip('torch')
    from pytorch_speed94 import SPEED94_MUON

    recipe = recipes.get('speed94_muon')
    assert (SPEED94_MUON.batch_size, SPEED94_MUON.epochs) == (recipe.batch_size, recipe.epochs)
    assert SPEED94_MUON.widths == recipe.widths
    assert SPEED94_MUON.whitening_bias_epochs == recipe.whitening_bias_epochs
    assert SPEED94_MUON.muon_rate == recipe.muon_learning_rate
    # Rates there are for the mean over the batch.
    assert SPEED94_MUON.bias_rate * 2000 == pytest.approx(recipe.peak_learning_rate)
    assert SPEED94_MUON.label_smoothing == recipe.label_smoothing
    assert SPEED94_MUON.padding == recipe.crop_padding


TWO_SIDES = """
import sys
sys.path.insert(0, {folder!r})
import turns


def make():
    if sys.argv[1] == '--side=broken':
        raise OSError('no\\nluck')
    print('noise')
    return {{
        'add': lambda a, b: a + b,
        'divide': lambda a: 1 / a,
        'arguments': lambda: sys.argv[1:],
    }}


turns.serve(make)
"""


def test_turns(tmp_path, capfd):
    import turns

    script = tmp_path / 'sides.py'
    script.write_text(TWO_SIDES.format(folder=str(FOLDER)))
    with turns.Side('one', str(script), ['--x=3']) as one, turns.Side('two', str(script)) as two:
        assert (one.ask('add', a=1, b=2), two.ask('add', a='x', b='y')) == (3, 'xy')
        assert one.ask('arguments') == ['--side=one', '--x=3']
        with pytest.raises(RuntimeError) as raised:
            two.ask('divide', a=0)
    assert str(raised.value) == 'the two side failed: ZeroDivisionError: division by zero'
    assert capfd.readouterr().err == 'noise\n' * 2
    with pytest.raises(RuntimeError, match=r'^the broken side failed: OSError: no luck$'):
        turns.Side('broken', str(script))
    script.write_text('raise SystemExit')
    with pytest.raises(RuntimeError, match=r'^the one side failed: it ended early$'):
        turns.Side('one', str(script))


class FakeSide:
    """A side that takes `pace` seconds a step in the first part and half of it later."""

    def __init__(self, name, script, arguments):
        self.name, self.pace = name, {'fenwicks': 2.0, 'pytorch': 4.0}[name]
        self.arguments = arguments

    def ask(self, question, **arguments):
        if question == 'take_steps':
            return arguments['count'] * self.pace / (2 if arguments['step'] else 1)
        return {
            'total_steps': 225,  # 9 epochs of 25 steps
            'parts': [(0, 0, 85), (3, 10, 140)],
            'describe': {'recipe': 'speed94', 'precision': 'float32', 'hardware': 'a machine'},
            'memory': {'peak_memory_mb': 1024, 'device_memory_mb': None},
        }[question]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


def test_projected_seconds(monkeypatch, tmp_path, capsys):
    pytest.importorskip('torch')
    log = tmp_path / 'log.jsonl'
    with loaded(FOLDER / 'time_to_94.py') as script:
        monkeypatch.setattr('turns.Side', FakeSide)
        call(script, '--steps=3', '--rounds=2', f'--log={log}')
    ours, theirs = runlog.read_lines(log)
    assert ours['projected']
    assert ours['step_seconds'] == [2.0, 1.0]
    assert ours['train_seconds'] == 85 * 2 + 140 * 1
    assert theirs['train_seconds'] == pytest.approx(2 * ours['train_seconds'])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ['fenwicks', '310.0']
    assert 'projected from steps of 2.000, 1.000 s' in lines[0]
    assert lines[2].startswith('fenwicks takes 0.50 times as long as PyTorch: speed94, float32')


def test_the_parts_of_a_training(torch):
    """Where steps take other times, for both sides: sizes, and the whitening's bias."""
    import trainings
    from absl.testing import flagsaver

    with loaded(FOLDER / 'time_to_94.py') as script, flagsaver.flagsaver():
        flags = ['time_to_94.py', *SMALL, '--recipe=speed94_muon', '--epochs=6']
        flags += ['--set=image_sizes=24,32', '--set=whitening_images=40']
        fw.command.parse_flags(flags, 'time_to_94.py')
        recipe = trainings.find_recipe('speed94_muon', script.FLAGS)
        dataset = trainings.load_dataset(script.FLAGS)
        training = trainings.make('pytorch', recipe, dataset, script.FLAGS)
        # Two steps an epoch; the bias learns for 2.25 epochs.
        assert training.parts() == [(0, 0, 5), (2, 1, 1), (3, 0, 6)]
        assert training._trainer.recipe.image_sizes == ((0, 24), (3, 32))
        assert training._trainer.recipe.whitening_images == 40
        sides = []
        for epoch, step in ((0, 0), (2, 1), (3, 0)):
            assert training.take_steps(epoch, step, 1) > 0
            training._trainer.begin_epoch(epoch, step)
            sides.append(training._trainer._resized(torch.zeros(1, 3, 32, 32)).shape[-1])
        assert sides == [24, 24, 32]


def test_growing_images_on_pytorchs_side_are_the_librarys(torch):
    one = trainer(image_sizes=((0, 24), (1, 32)))
    images = torch.rand(2, 3, 32, 32)
    ours = fw.augment.resize(images.permute(0, 2, 3, 1).numpy(), 24, 24, antialias=False)
    theirs = one._resized(images).permute(0, 2, 3, 1)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), theirs, atol=1e-5)
    one.begin_epoch(1)
    assert one._resized(images) is images


def test_whole_trainings_alternate(monkeypatch, tmp_path):
    pytest.importorskip('torch')
    order = []

    class Whole(FakeSide):
        def ask(self, question):
            order.append((self.name, self.arguments[1]))
            described = super().ask('describe')
            memory = super().ask('memory')
            return {
                **described,
                **memory,
                'backend': self.name,
                'seed': 0,
                'test_accuracy': 0.9,
                'train_seconds': self.pace,
            }

    log = tmp_path / 'log.jsonl'
    with loaded(FOLDER / 'time_to_94.py') as script:
        monkeypatch.setattr('turns.Side', Whole)
        call(script, '--runs=2', '--seed=5', f'--log={log}')
    assert order == [
        ('fenwicks', '--seed=5'),
        ('pytorch', '--seed=5'),
        ('pytorch', '--seed=6'),
        ('fenwicks', '--seed=6'),
    ]
    assert [line['side'] for line in runlog.read_lines(log)] == [name for name, _ in order]


def test_the_comparison_without_pytorch(monkeypatch):
    with loaded(FOLDER / 'time_to_94.py') as script:
        monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
        assert refused(script) == 'the comparison needs PyTorch: pip install torch'


@pytest.mark.parametrize(
    ('name', 'flag', 'line'),
    [
        ('time_to_94', '--runs=0', 'flag --runs=0: 0 is not a positive integer'),
        ('time_to_94', '--steps=-1', 'flag --steps=-1: -1 is not a positive integer'),
        ('time_to_94', '--recipe=fast', 'flag --recipe=fast: value should be one of'),
        ('time_to_94', '7', 'there are no arguments besides flags. Received: 7'),
        ('seeds', '--runs=0', 'flag --runs=0: 0 is not a positive integer'),
        ('seeds', '--minutes=0', '`minutes` must be positive. Received: minutes=0'),
        ('seeds', '--recipes=', '`recipes` must name one at least. Received: recipes='),
        ('seeds', '--seed=-1', 'flag --seed=-1: -1 is not a non-negative integer'),
        ('seeds', '--recipes=fast', '`recipe` must be one of fenwicks24, '),
        ('seeds', '--test_limit=0', '`test_limit` must be in [1, 296]. Received: test_limit=0'),
        ('throughput', '--rounds=0', 'flag --rounds=0: 0 is not a positive integer'),
        ('throughput', '--log=/no/log', 'the log must be a file that can be written to. '),
        ('throughput', '7', 'there are no arguments besides flags. Received: 7'),
        ('profile_step', '--log=/no/log', 'the log must be a file that can be written to. '),
        ('profile_step', '--steps=0', 'flag --steps=0: 0 is not a positive integer'),
        ('profile_step', '--none', "Unknown command line flag 'none'"),
    ],
)
def test_bad_input_is_one_line(name, flag, line):
    pytest.importorskip('torch')
    with loaded(FOLDER / f'{name}.py') as script:
        dataset = ('--dataset=digits',) if name in ('time_to_94', 'seeds') else ()
        assert refused(script, *dataset, flag).startswith(line)


def test_seeds_take_turns_until_time_is_up(monkeypatch, tmp_path, capsys):
    log = tmp_path / 'log.jsonl'
    now = [0.0]
    seconds = {'page10+momentum=0.8': 30.0, 'speed94+momentum=0.8': 10.0}

    def made(side, recipe, dataset, values, seed):
        def run():
            now[0] += seconds[recipe.name]
            return {
                'recipe': recipe.name,
                'seed': seed,
                'backend': 'none',
                'test_accuracy': 0.5,
                'train_seconds': 1.0,
            }

        return types.SimpleNamespace(run=run)

    with loaded(FOLDER / 'seeds.py') as script:
        monkeypatch.setattr('trainings.make', made)
        monkeypatch.setattr(script, 'time', types.SimpleNamespace(monotonic=lambda: now[0]))
        recipes_flag = '--recipes=page10,speed94'
        options = ['--set=momentum=0.8', '--dataset=digits', f'--log={log}']
        call(script, recipes_flag, '--minutes=1.6', '--seed=2', *options)
    done = [(line['recipe'].split('+')[0], line['seed']) for line in runlog.read_lines(log)]
    # 30, 40, 70, 80; a third page10 would end at 110, after the 96 seconds; speed94 at 90.
    assert done == [('page10', 2), ('speed94', 2), ('page10', 3), ('speed94', 3), ('speed94', 4)]
    assert capsys.readouterr().out.splitlines()[-1] == (
        'speed94+momentum=0.8, none: 50.00 ± 0.00 % over 3, median 1.0 s of training'
    )


@pytest.mark.thorough
@pytest.mark.backend('tensorflow')
def test_a_training_of_the_library_reports(tmp_path):
    log = tmp_path / 'log.jsonl'
    with loaded(FOLDER / 'seeds.py') as script:
        call(script, *SMALL, '--recipes=speed94', '--runs=1', f'--log={log}')
    (line,) = runlog.read_lines(log)
    assert (line['side'], line['backend'], line['recipe']) == ('fenwicks', 'tensorflow', 'speed94')
    assert (line['widths'], line['epochs'], line['train_images']) == ([4, 16, 16], 1, 64)
    assert line['settings']['recipe']['name'] == 'speed94'
    assert (line['test_images'], line['device_memory_mb']) == (20, None)
    assert 0 <= line['test_accuracy'] <= 1
    assert line['train_seconds'] > 0
    assert line['images_per_second'] == pytest.approx(64 / line['train_seconds'])


def test_pytorch_reports(torch, monkeypatch, tmp_path):
    import pytorch_trainer

    monkeypatch.setattr(pytorch_trainer, 'use_all_threads', lambda: None)
    log = tmp_path / 'log.jsonl'
    with loaded(FOLDER / 'seeds.py') as script:
        call(script, *SMALL, '--side=pytorch', '--recipes=speed94_muon', '--runs=1', f'--log={log}')
        message = refused(script, *SMALL, '--side=pytorch', '--recipes=page10')
        for change in ('tta=none', 'peak_learning_rate=1'):  # what it would not heed
            flags = ('--side=pytorch', '--recipes=speed94_muon', f'--set={change}')
            said = refused(script, *SMALL, *flags)
            assert said.startswith('`recipe` must be speed94_muon for PyTorch. Received: ')
    (line,) = runlog.read_lines(log)
    assert (line['replicas'], line['settings']['recipe']['widths']) == (1, [4, 16, 16])
    assert (line['side'], line['backend'], line['widths']) == ('pytorch', 'pytorch', [4, 16, 16])
    assert line['train_seconds'] > 0
    assert message == ('`recipe` must be speed94_muon for PyTorch. Received: recipe=page10')


def test_flops_of_a_small_network():
    with loaded(FOLDER / 'profile_step.py') as script:
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Conv2D(4, 3, padding='same', use_bias=False),
                fw.layers.ConvBN(6, kernel_size=1),
                keras.layers.GlobalMaxPooling2D(),
                keras.layers.Dense(5),
            ]
        )
        conv, pointwise, dense = 64 * 4 * 27, 64 * 6 * 4, 5 * 6
        assert script.count_flops(model) == {
            'forward': 2 * (conv + pointwise + dense),
            'input gradient': 2 * (pointwise + dense),  # nobody asks for the images'
            'kernel gradient': 2 * (conv + pointwise + dense),
        }
        model.layers[0].trainable = False
        assert script.count_flops(model) == {
            'forward': 2 * (conv + pointwise + dense),
            'input gradient': 2 * dense,
            'kernel gradient': 2 * (pointwise + dense),
        }


def test_flops_of_hard_examples():
    """Half of the images train the network, a quarter the proxy, which sees all of them."""

    def dense(name):
        return keras.Sequential(
            [
                keras.Input((4, 4, 3)),
                keras.layers.Flatten(),
                keras.layers.Dense(6, name=f'{name}_1'),
                keras.layers.Dense(5, name=f'{name}_2'),
            ]
        )

    model = fw.training.HardExamples(dense('large'), dense('small'))
    with loaded(FOLDER / 'profile_step.py') as script:
        one = script.count_flops(model.network)
        assert one == {'forward': 636, 'input gradient': 60, 'kernel gradient': 636}
        assert script.flops_of_image(model.network, 4) == one
        assert script.flops_of_image(model, 4) == {
            'forward': (0.5 + 1) * 636,
            'input gradient': (0.5 + 0.25) * 60,
            'kernel gradient': (0.5 + 0.25) * 636,
        }


@pytest.mark.backend('tensorflow')
def test_time_is_shared_by_what_runs_at_once():
    from op_times import IDLE, Event, share_time

    events = [Event('a', 'Mul', 0, 3), Event('b', 'Add', 2, 4), Event('a', 'Mul', 5, 6)]
    assert share_time(events) == {('a', 'Mul'): 3.5, ('b', 'Add'): 1.5, IDLE: 1}
    # Two runs of one operation, side by side, and something that takes no time.
    events = [Event('a', 'Mul', 0, 2), Event('a', 'Mul', 0, 2), Event('b', 'Add', 1, 1)]
    assert share_time(events) == {('a', 'Mul'): 2}


@pytest.mark.thorough
@pytest.mark.backend('tensorflow')
def test_a_profile_adds_up(tmp_path, capsys):
    log = tmp_path / 'log.jsonl'
    with loaded(FOLDER / 'profile_step.py') as script:
        flags = ('--recipe=speed94', '--width=0.125', '--batch_size=16', '--precision=bfloat16')
        call(script, *flags, '--steps=2', '--peak_size=64', '--top=300', f'--log={log}')
    text = capsys.readouterr().out
    assert 'convolution, kernel gradient' in text
    (result,) = runlog.read_lines(log)
    times = result['milliseconds']
    assert sum(times.values()) == pytest.approx(1000 * result['traced_step_seconds'], rel=0.01)
    for kind in ('convolution, forward', 'convolution, kernel gradient', 'batch norm, backward'):
        assert times[kind] > 0, kind
    for kind in ('activation, forward', 'pooling, backward', 'optimizer', 'augmentation', 'casts'):
        assert times[kind] > 0, kind
    assert times['other'] < 0.3 * sum(times.values())
    # Every convolution has its layer, in each of the three directions.
    kernels = {op['layer'] for op in result['operations'] if op['kind'].endswith('kernel gradient')}
    assert {'group_1/conv_bn/conv', 'group_3/down/conv_bn_1/conv'} <= kernels
    lines = {op['line'].split(':')[0] for op in result['operations']}
    assert 'muon.py' in lines | {'newton_schulz.py'}
    assert result['step_flops'] == 16 * sum(result['flops_per_image'].values())


@pytest.mark.backend('jax')
def test_the_profile_says_that_it_needs_tensorflow():
    with loaded(FOLDER / 'profile_step.py') as script:
        assert refused(script).startswith('the profile must be taken on the tensorflow backend')


@pytest.mark.thorough
def test_the_host_has_little_to_do(tmp_path, capsys):
    log = tmp_path / 'log.jsonl'
    with loaded(FOLDER / 'host_work.py') as script:
        call(script, '--recipe=page10', '--calls=5', f'--log={log}')
    (result,) = runlog.read_lines(log)
    assert result == json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result['recipe'] == 'page10'
    assert result['n'] == 5
    assert 0 < result['milliseconds'] <= result['slowest_milliseconds']


@pytest.mark.thorough
@pytest.mark.backend('tensorflow', 'jax')
def test_streaming_beside_the_resident_path(tmp_path, capsys):
    log = tmp_path / 'log.jsonl'
    tiny = ('--dataset=digits', '--recipe=page10', '--width=0.03', '--limit=1024', '--rounds=1')
    with loaded(FOLDER / 'streaming.py') as script:
        call(script, *tiny, '--dense_images=128', '--dense_rounds=1', f'--log={log}')
    streamed, overhead = runlog.read_lines(log)
    assert streamed == json.loads(capsys.readouterr().out.splitlines()[-2])
    assert (streamed['steps_per_epoch'], streamed['recipe']) == (2, 'page10')
    rates = streamed['resident_images_per_second'], streamed['streamed_images_per_second']
    assert streamed['ratio'] == pytest.approx(rates[1] / rates[0], rel=0.01)
    assert overhead['steps_per_epoch'] == 4
    micros = overhead['microseconds_per_step']
    assert overhead['times_as_fast']['fit'] == pytest.approx(
        micros['fit'] / micros['trainer'], rel=0.05
    )


@pytest.mark.parametrize(
    ('flag', 'line'),
    [
        ('--calls=0', 'flag --calls=0: 0 is not a positive integer'),
        ('--recipe=fast', '`recipe` must be one of fenwicks24, '),
        ('--log=/no/log', 'the log must be a file that can be written to. '),
    ],
)
def test_bad_input_of_host_work(flag, line):
    with loaded(FOLDER / 'host_work.py') as script:
        assert refused(script, flag).startswith(line)


def test_relative_errors():
    with loaded(FOLDER / 'rounding.py') as script:
        reference = {'a': np.array([3.0, 4.0]), 'b': np.array([2.0])}
        found = script.relative_errors({'a': np.array([3.0, 4.5]), 'b': np.array([2.0])}, reference)
    assert found == {'a': pytest.approx(0.1), 'b': 0.0}


@pytest.mark.thorough
@pytest.mark.backend('tensorflow')
@pytest.mark.parametrize('precision', ['bfloat16', 'float16'])
def test_rounding_of_gradients(tmp_path, capsys, precision):
    log = tmp_path / 'rounding.jsonl'
    flags = ['--recipe=page10', '--width=0.0625', '--dataset=digits', f'--precision={precision}']
    with loaded(FOLDER / 'rounding.py') as script:
        call(script, *flags, f'--log={log}')
    (result,) = runlog.read_lines(log)
    errors = result['relative_errors']
    assert f'| `{next(iter(errors))}` | ' in capsys.readouterr().out
    assert len(errors) == 17
    assert all(0 < error < 0.5 for error in errors.values())


@pytest.mark.parametrize(
    ('flag', 'line'),
    [
        ('--recipe=fast', '`recipe` must be one of fenwicks24, '),
        ('--precision=int8', 'flag --precision=int8: value should be one of <bfloat16|float16>'),
        ('--dataset=mnist', '`dataset` must be '),
        ('--log=/no/log', 'the log must be a file that can be written to. '),
    ],
)
@pytest.mark.backend('tensorflow')
def test_bad_input_of_rounding(flag, line):
    with loaded(FOLDER / 'rounding.py') as script:
        assert refused(script, flag).startswith(line)


@pytest.mark.thorough
@pytest.mark.backend('tensorflow')
def test_augmentations_are_timed(tmp_path, capsys):
    log = tmp_path / 'log.jsonl'
    with loaded(FOLDER / 'augmentation.py') as script:
        call(script, '--batch_size=4', '--width=0.0625', '--rounds=2', f'--log={log}')
    (result,) = runlog.read_lines(log)
    assert len(result['milliseconds']) == 4
    assert all(milliseconds > 0 for milliseconds in result['milliseconds'].values())
    assert '| step of ResNet-9, float32 | ' in capsys.readouterr().out


@pytest.mark.thorough
@pytest.mark.backend('tensorflow')
def test_the_ways_from_files_to_batches_are_timed(tmp_path, monkeypatch):
    monkeypatch.setenv('FENWICKS_OFFLINE', '1')
    log = tmp_path / 'log.jsonl'
    monkeypatch.setattr(fw.data, 'load', lambda *_: fw.data.Dataset(*_digits()))
    with loaded(FOLDER / 'image_data.py') as script:
        call(script, '--limit=64', '--batch_size=16', '--files=4', '--passes=2', f'--log={log}')
        assert refused(script, '--parts=speed').startswith('`parts` must be of batches')
    batches, folder, memory = runlog.read_lines(log)
    assert batches['streamed'] > 0
    assert batches['ImageBatches'] > 0
    assert folder['files'] == 4
    assert len(memory['resident_mb']) == 2


def _digits():
    from fenwicks.data.sample import load_digits

    digits = load_digits()
    return [getattr(digits, field) for field in digits.__dataclass_fields__]
