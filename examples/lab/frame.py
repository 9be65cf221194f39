"""What the experiments of the lab share: flags, data, log, figure, and a verdict by a fixed rule.

An experiment says what it asks, what was claimed, which runs answer it, and by which rule the
answer follows from them. `run` trains what the log lacks, draws the figure and prints the verdict:

    python examples/lab/06_weight_decay.py                    # small: minutes on two cores
    python examples/lab/06_weight_decay.py --full             # the published size: on a GPU
    python examples/lab/06_weight_decay.py --render           # only figure and verdict, of the log

Each run is a line of JSON in the log, with the settings, the hardware and the commit. After an
interrupt the same command goes on. A log of other settings is refused. The rule is written down in
the script, before any run; the verdict is computed from the log alone.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import quiet  # noqa: F401

import keras
from absl import flags

from fenwicks import command, data, devices, hardware, precision, runlog

FLAGS = flags.FLAGS
HERE = pathlib.Path(__file__).resolve().parent
OPTIONS = (
    'full',
    'render',
    'out',
    'seeds',
    'dataset',
    'data_dir',
    'device',
)

Run = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """An experiment's answer.

    Attributes:
        held: whether the claim held here.
        because: the numbers that the rule looked at, as a sentence.
    """

    held: bool
    because: str


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A question, and how it is answered.

    Attributes:
        name: of the script without its ending, of the log and of the figures.
        question, claim, source: what is asked, what was claimed, and where.
        rule: when the claim holds, in words.
        small, full: settings of the two sizes, of what JSON holds; `seeds` and `limit`, the number
            of training images, are among them.
        variants: from the settings to the dicts that tell the runs of a seed apart.
        train: from settings, variant, seed and data set to what came of it, of what JSON holds.
        draw: from the runs, dicts of variant, `seed` and results, to a Matplotlib figure.
        judge: from the runs to the `Verdict`, by the rule.
    """

    name: str
    question: str
    claim: str
    source: str
    rule: str
    small: dict[str, Any]
    full: dict[str, Any]
    variants: Callable[[dict[str, Any]], Sequence[dict[str, Any]]]
    train: Callable[[dict[str, Any], dict[str, Any], int, data.Dataset], dict[str, Any]]
    draw: Callable[[list[Run]], Any]
    judge: Callable[[list[Run]], Verdict]


def define_flags() -> None:
    """Defines the flags that all experiments have."""
    flags.DEFINE_bool('full', False, 'The published size, instead of minutes on two cores.')
    flags.DEFINE_bool('render', False, 'Train nothing: figure and verdict of what is in the log.')
    flags.DEFINE_string('out', 'out/lab', 'Folder of the log and the figures.')
    flags.DEFINE_integer('seeds', None, 'Runs of each variant; by default as the size has it.')
    flags.DEFINE_string('dataset', 'auto', f'One of {", ".join(data.DATASETS)}.')
    flags.DEFINE_string('data_dir', None, 'Folder that holds the data set, in any published form.')
    flags.DEFINE_string('device', 'auto', f'One of {", ".join(devices.DEVICES)}.')


def start(experiment: Experiment) -> None:
    """Runs an experiment as a command."""
    define_flags()
    command.run(lambda: run(experiment), f'{experiment.name}.py')


def run(experiment: Experiment) -> Verdict:
    """Trains what is missing, draws the figure, and prints and returns the verdict."""
    command.say_how_to_go_on('the same command goes on')
    settings = dict(experiment.full if FLAGS.full else experiment.small)
    if FLAGS.seeds is not None:
        if FLAGS.seeds < 1:
            raise ValueError(f'`seeds` must be a positive integer. Received: seeds={FLAGS.seeds}')
        settings['seeds'] = FLAGS.seeds
    out = pathlib.Path(FLAGS.out).expanduser()
    size = 'full' if FLAGS.full else 'small'
    log = out / f'{experiment.name}-{size}.jsonl'
    if not FLAGS.render:
        out.mkdir(parents=True, exist_ok=True)
        train_missing(experiment, settings, log)
    lines = runlog.read_lines(log)
    check_settings(log, lines, settings)
    runs = [{**line['variant'], 'seed': line['seed'], **line['result']} for line in lines]
    verdict = experiment.judge(runs)
    save_figure(experiment.draw(runs), out / f'{experiment.name}-{size}')
    print(f'{experiment.question}\nclaim: {experiment.claim} ({experiment.source})')
    print(f'rule: {experiment.rule}')
    n = len({run['seed'] for run in runs})
    print(f'{"held" if verdict.held else "did not hold"}, n={n}: {verdict.because}')
    return verdict


def train_missing(experiment: Experiment, settings: dict[str, Any], log: pathlib.Path) -> None:
    """Appends the runs that the log lacks."""
    code = hardware.provenance()
    device = devices.select_device(FLAGS.device)
    dataset = data.load(FLAGS.dataset, FLAGS.data_dir)
    if settings['limit'] < len(dataset.train_images):
        dataset = dataset.limit(settings['limit'])
    about = {
        'experiment': experiment.name,
        'dataset': dataset.name,
        'settings': fixed(settings),
        'precision': precision.set_precision('float32', device),
        'backend': keras.backend.backend(),
        'hardware': hardware.describe(device),
    }
    runlog.start_log(log)
    with runlog.locked(log):
        lines = runlog.read_lines(log)
        check_settings(log, lines, settings, dataset.name, about['backend'])
        done = [(line['variant'], line['seed']) for line in lines]
        for seed in range(settings['seeds']):
            for variant in experiment.variants(settings):
                if (variant, seed) in done:
                    continue
                keras.utils.clear_session()
                keras.utils.set_random_seed(seed)
                began = time.perf_counter()
                result = experiment.train(settings, variant, seed, dataset)
                seconds = round(time.perf_counter() - began, 1)
                line = {**about, **code, 'variant': variant, 'seed': seed}
                runlog.append_line(log, {**line, 'result': result, 'seconds': seconds})
                print(f'{variant}, seed {seed}: {seconds} s', flush=True)


def fixed(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings but the number of seeds, to which more may be added."""
    return {key: value for key, value in settings.items() if key != 'seeds'}


def check_settings(log, lines, settings, dataset=None, backend=None):
    """Raises where the log holds runs of other settings, data or backend."""
    wanted = {'settings': fixed(settings)}
    wanted |= {'dataset': dataset} if dataset else {}
    wanted |= {'backend': backend} if backend else {}
    for line in lines:
        other = {key: line.get(key) for key, value in wanted.items() if line.get(key) != value}
        if other:
            raise ValueError(
                f'{log} must hold runs of these settings only: pass another folder as `out`. '
                f'Received: a run with {other}'
            )


def save_figure(figure: Any, path: pathlib.Path) -> None:
    """Writes a figure as PNG and as SVG."""
    from fenwicks import plots

    for ending in ('.png', '.svg'):
        plots.save(figure, path.with_suffix(ending))
