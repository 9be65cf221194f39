"""The rules of the lab's experiments on made logs, and how a search chooses its next run."""

import importlib.util
import math

import pytest
from scripts import ROOT, loaded

pytestmark = pytest.mark.backend('tensorflow')
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec('matplotlib') is None, reason='Matplotlib is not installed'
)


def load(name):
    return loaded(ROOT / 'examples' / 'lab' / f'{name}.py')


def judged(script, runs):
    return [claim.judge(runs).held for claim in script.EXPERIMENT.claims]


@pytest.fixture(scope='module')
def architecture():
    with load('04_architecture') as script:
        yield script


def noise(*values):
    """A small number, the same each time, that looks random."""
    return 0.001 * math.sin(sum(37 * ord(letter) for letter in repr(values)))


def architecture_runs(script, accuracy, seeds=3):
    """Runs whose accuracy is a function of name, added convolutions, epochs and seed."""
    runs = []
    for seed in range(seeds):
        for variant in script.variants(script.EXPERIMENT.small):
            name = script.name_of(variant)
            added = len(variant.get('extra', [])) + 2 * len(variant.get('residual', []))
            found = accuracy(name, added, variant['epochs'], seed)
            runs.append(
                {
                    **variant,
                    'seed': seed,
                    'accuracy': None if found is None else found + noise(name, seed),
                    'train_seconds': (4 + added) * variant['epochs'],
                }
            )
    return runs


BASE = {'shortest path': 0.4, '3x3 kernels': 0.5, 'max pooling': 0.55, 'global max': 0.58}


def as_published(name, added, epochs, seed):
    best = 0.01 if name == 'residual 1+3' else 0.0
    return BASE.get(name, 0.6) + 0.01 * added * (added < 6) + best + 0.001 * epochs


def too_deep(name, added, epochs, seed):
    return BASE.get(name, 0.6) - 0.01 * added + 0.02 * epochs


def diverging(name, added, epochs, seed):
    return None if name == '3x3 kernels' and seed else as_published(name, added, epochs, seed)


def test_the_rules_of_architecture(architecture):
    assert architecture.variants(architecture.EXPERIMENT.small)[4] == {
        'extra': [], 'residual': [], 'epochs': 4,
    }  # fmt: skip
    assert len(architecture.FAMILY) == 15
    held = judged(architecture, architecture_runs(architecture, as_published))
    assert held == [True] * 6
    held = judged(architecture, architecture_runs(architecture, too_deep))
    assert held == [True] * 4 + [False] * 2
    runs = architecture_runs(architecture, diverging)
    assert judged(architecture, runs)[0] is False
    said = architecture.EXPERIMENT.claims[0].judge(runs).because
    assert said.endswith('(2 diverged, counted as 10 %)')
    # One run of each is too few to say that anything is better.
    assert not any(judged(architecture, architecture_runs(architecture, as_published, seeds=1)))


@needs_matplotlib
def test_the_figure_of_architecture(architecture):
    runs = architecture_runs(architecture, diverging, seeds=2)
    steps, family = architecture.EXPERIMENT.draw(runs).axes
    assert len(steps.patches) == 5
    assert {text.get_text() for text in family.texts} >= {'1', '2', '3', '1+3', '1+2+3'}


def test_the_backbones_of_architecture(architecture):
    """Each step changes what it says, and the last is where the family begins."""
    from fenwicks import data, models

    dataset = data.load('digits')
    settings = {'width': 2}
    built = {
        name: architecture.build(settings, {'step': name}, dataset)
        for name in architecture.STEPS
        if name != 'scale'
    }
    kernels = {
        name: [tuple(v.shape) for v in model.trainable_variables if 'kernel' in v.path]
        for name, model in built.items()
    }
    narrow = [(3, 3, 3, 2), (3, 3, 2, 4), (3, 3, 4, 8), (3, 3, 8, 8), (16, 10)]
    assert kernels['shortest path'] == [narrow[0], *((1, 1, *k[2:]) for k in narrow[1:4]), (16, 10)]
    assert kernels['3x3 kernels'] == kernels['max pooling'] == narrow
    assert kernels['global max'] == [*narrow[:3], (3, 3, 8, 16), (16, 10)]
    assert all(model.output_shape == (None, 10) for model in built.values())
    for model in built.values():
        gammas = [v.numpy() for v in model.trainable_variables if 'gamma' in v.path]
        assert all(0 <= gamma.min() < gamma.max() < 1 for gamma in gammas)
        assert len({float(gamma[0]) for gamma in gammas}) == len(gammas)  # drawn each by itself
    last = architecture.build(settings, {'extra': [], 'residual': []}, dataset)
    same = models.backbone(dataset.image_shape, 10, [2, 4, 8, 16])
    assert [v.shape for v in last.weights] == [v.shape for v in same.weights]
    assert last.get_layer('classifier').weight == 0.125
    assert built['global max'].get_layer('classifier').weight == 1


@pytest.fixture(scope='module')
def hyper_parameters():
    with load('05_hyper_parameters') as script:
        yield script


def searched(script, accuracy, seeds=2):
    """The runs that the script asks for, one after the other, as the frame does."""
    settings, runs = script.EXPERIMENT.small, []
    for seed in range(seeds):
        of_seed, variants = [], []
        while True:
            wanted = [*script.variants(settings), *script.more(settings, of_seed)]
            missing = [variant for variant in wanted if variant not in variants]
            if not missing:
                break
            found = accuracy(missing[0])
            if found is not None:
                found += noise(seed, missing[0])
            variants.append(missing[0])
            of_seed.append({**missing[0], 'seed': seed, 'accuracy': found, 'held_out': found})
        runs += of_seed
    return runs


def by_product(point):
    """Best where the product of the post has a certain value; the batch size hardly counts."""
    product = point['rate'] * point['decay'] / point['loss_of_momentum']
    if product > 10:
        return None
    sizes = math.log2(point['batch_size'] / 256)
    return 0.7 - 0.004 * math.log2(product / 0.04) ** 2 - 0.002 * sizes**2


def by_rate(point):
    return 0.7 - 0.004 * math.log2(point['rate'] / 0.4) ** 2


def peaked(point):
    values = point['rate'] / 0.4, point['decay'] / 0.008, point['loss_of_momentum'] / 0.1
    return 0.7 - 0.05 * sum(abs(math.log2(value)) for value in values)


@pytest.mark.parametrize(
    ('accuracy', 'held'),
    [
        (by_product, [True, True, True, True]),
        (by_rate, [True, True, False, False]),
        (peaked, [True, False, False, False]),
        (lambda point: None, [False, True, False, False]),
    ],
)
def test_the_rules_of_hyper_parameters(hyper_parameters, accuracy, held):
    assert judged(hyper_parameters, searched(hyper_parameters, accuracy)) == held


def test_where_a_search_ends(hyper_parameters):
    descent = hyper_parameters.descent
    start = descent.point(rate=0.05, loss_of_momentum=0.4, decay=5e-4, batch_size=256)
    bounds = hyper_parameters.EXPERIMENT.small['bounds']
    scores = {}

    def go(score, sweeps=9):
        while True:
            found, ended = descent.search(start, bounds, scores, sweeps)
            if ended:
                return found
            assert descent.key(found) not in scores
            scores[descent.key(found)] = score(found)

    end = go(peaked)
    assert end == {'rate': 0.4, 'loss_of_momentum': 0.1, 'decay': 0.008, 'batch_size': 256}
    assert len(scores) < 25
    # It ended because all around are known, and worse.
    around = descent.neighbours(end, bounds)
    assert len(around) == 8
    assert all(descent.key(each) in scores for each in around)
    assert all(descent.are_neighbours(each, end) for each in around)
    assert not descent.are_neighbours(end, end)
    assert not descent.are_neighbours(start, end)
    scores.clear()
    assert go(lambda point: None) == start  # all diverged
    scores.clear()
    assert go(lambda point: point['rate'], sweeps=1)['rate'] == 6.4  # as far as the bounds allow
    assert go(lambda point: point['rate'], sweeps=1)['decay'] == 5e-4


@needs_matplotlib
def test_the_figure_of_hyper_parameters(hyper_parameters):
    runs = searched(hyper_parameters, by_product, seeds=1)
    search, cells, rows, _ = hyper_parameters.EXPERIMENT.draw(runs).axes
    assert len(search.lines) == 2
    assert len(cells.texts) == 25
    assert [line.get_label() for line in rows.lines] == ['momentum 0.9', 'momentum 0.6']


@pytest.fixture(scope='module')
def batch_norm():
    with load('07_batch_norm') as script:
        yield script


def norm_runs(steep=30.0, slow=0.1, share=0.9, constant=0.02, near=0.02, random=0.5):
    numbers = {'norm': (1.0, 2.0, 0.2), 'frozen': (steep, slow, near), 'none': (20.0, 0.1, 0.02)}
    varying = {'relu': constant, 'linear': 0.9, 'norm': 0.7, 'frozen': 0.6}
    lengths = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]

    def losses(doubled):
        return [2.0, *(2.0 + 2 * (length >= doubled) for length in lengths)]

    return [
        run
        for seed in range(2)
        for run in (
            *(
                {'part': 'depth', 'network': name, 'seed': seed, 'varying': [0.9, 0.5, share]}
                for name, share in varying.items()
            ),
            *(
                {
                    'part': 'curvature',
                    'network': name,
                    'seed': seed,
                    'eigenvalues': [leading, 0.1],
                    'predicted': 2 / leading,
                    'measured': measured,
                    'shares': [share, share],
                    'lengths': lengths,
                    'losses': losses(doubled),
                    'random_losses': losses(random),
                }
                for name, (leading, measured, doubled) in numbers.items()
            ),
        )
    ]


@pytest.mark.parametrize(
    ('runs', 'failed'),
    [
        (norm_runs(), []),
        (norm_runs(constant=0.2), [0]),
        (norm_runs(near=0.1), [1]),
        (norm_runs(random=0.05), [1]),
        (norm_runs(random=9.0), []),  # it never doubles
        (norm_runs(steep=2.0), [2, 4]),
        (norm_runs(steep=-1.0), [2, 4]),
        (norm_runs(share=0.3), [3]),
        (norm_runs(slow=1.0), [4]),
        (norm_runs(slow=None), [4]),  # no stable rate
    ],
)
def test_the_rules_of_batch_norm(batch_norm, runs, failed):
    assert judged(batch_norm, runs) == [number not in failed for number in range(5)]


@needs_matplotlib
def test_the_figure_of_batch_norm(batch_norm):
    runs = norm_runs()
    runs[-1] |= {'measured': None, 'losses': [2.0, *[None] * 6]}  # as numbers that aren't finite
    depth, walk, spectrum, rates = batch_norm.EXPERIMENT.draw(runs).axes
    assert len(depth.lines) == 4
    assert len(walk.lines) == 6
    assert len(spectrum.lines) == 6
    assert len(rates.lines) == 7
