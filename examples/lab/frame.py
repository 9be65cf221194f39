"""What the experiments of the lab share: flags, data, log, figure, and verdicts by fixed rules.

An experiment says what it asks, what was claimed, which runs answer it, and by which rule each
claim is decided. `run` trains what the log lacks, draws the figure and prints the verdicts:

    python examples/lab/06_weight_decay.py                    # small: minutes on two cores
    python examples/lab/06_weight_decay.py --full             # the published size: on a GPU
    python examples/lab/06_weight_decay.py --render           # only figure and verdicts, of the log

Each run is a line of JSON in the log, with the settings, the hardware and the commit. After an
interrupt the same command goes on. A log has the runs of one size, data set, backend, precision and
hardware; others are refused. A rule is written down in the script, before any run; the verdict is
computed from the log alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import startup  # noqa: F401

import keras
from absl import flags

from fenwicks import command, data, devices, hardware, precision, runlog, training

FLAGS = flags.FLAGS
SIZES = ('small', 'full')
CONDITIONS = ('dataset', 'backend', 'precision', 'hardware')  # of which a log has one each

Settings = dict[str, Any]
Variant = dict[str, Any]
Run = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the runs say of a claim.

    Attributes:
        held: whether the claim held here.
        because: the numbers that the rule looked at, as a sentence; ± is two standard errors.
    """

    held: bool
    because: str

    def __str__(self) -> str:
        return 'held' if self.held else 'did not hold'


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, and the rule that decides it.

    Attributes:
        text: what was claimed, as a sentence without its full stop.
        rule: when the claim holds, in words.
        judge: from the runs to the `Verdict`, by the rule.
    """

    text: str
    rule: str
    judge: Callable[[list[Run]], Verdict]


def no_more(settings: Settings, runs: list[Run]) -> list[Variant]:
    return []


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A question, and how it is answered.

    Attributes:
        name: of the script without its ending, with which those of the log and the figures begin.
        question, source: what is asked, and where the claims were made.
        claims: what was claimed.
        small, full: settings of the two sizes, of what JSON holds; `seeds` and `limit`, the number
            of training images, are among them.
        variants: from the settings to the dicts that tell the runs of a seed apart.
        train: from settings, variant, seed and data set to what came of it, of what JSON holds. A
            run that diverges is a result, too.
        draw: from the runs, dicts of variant, `seed` and results, to a Matplotlib figure. It gets
            whole seeds, and so does `judge`.
        more: from the settings and the runs of a seed so far to further variants, for a search
            whose next runs depend on the last ones.
        precision: of the arithmetic, as in `precision.set_precision`.
        needs_all: whether it can't do with fewer training images than `limit`.
    """

    name: str
    question: str
    source: str
    claims: tuple[Claim, ...]
    small: Settings
    full: Settings
    variants: Callable[[Settings], Sequence[Variant]]
    train: Callable[[Settings, Variant, int, data.Dataset], dict[str, Any]]
    draw: Callable[[list[Run]], Any]
    more: Callable[[Settings, list[Run]], Sequence[Variant]] = no_more
    precision: str = 'float32'
    needs_all: bool = False

    def settings(self, size: str) -> Settings:
        """The settings of a size."""
        return dict(self.full if size == 'full' else self.small)


def define_flags() -> None:
    """Defines the flags that all experiments have."""
    flags.DEFINE_bool('full', False, 'The published size, instead of minutes on two cores.')
    flags.DEFINE_bool('render', False, 'Train nothing: figure and verdicts of what is in the log.')
    flags.DEFINE_string('out', 'out/lab', 'Folder of the log and the figures.')
    flags.DEFINE_string(
        'log', None, 'Another log than SCRIPT-SIZE.jsonl in `out`; the figures lie beside it.'
    )
    flags.DEFINE_integer('seeds', None, 'Runs of each variant; by default as the size has it.')
    flags.DEFINE_bool(
        'shared_machine', False, 'Marks the runs: others ran beside, so that their times mean less.'
    )
    flags.DEFINE_string('dataset', 'auto', f'One of {", ".join(data.DATASETS)}.')
    flags.DEFINE_string('data_dir', None, 'Folder that holds the data set, in any published form.')
    flags.DEFINE_string('device', 'auto', f'One of {", ".join(devices.DEVICES)}.')


def start(experiment: Experiment) -> None:
    """Runs an experiment as a command."""
    define_flags()
    for flag in FLAGS.get_flags_for_module(__name__):
        FLAGS.register_key_flag_for_module(sys.argv[0], flag)  # for --help
    command.run(lambda: run(experiment), f'{experiment.name}.py')


def run(experiment: Experiment) -> list[Verdict]:
    """Trains what is missing, draws the figure, and prints and returns the verdicts."""
    command.say_how_to_go_on('the same command goes on')
    size = 'full' if FLAGS.full else 'small'
    settings = experiment.settings(size)
    if FLAGS.seeds is not None:
        if FLAGS.seeds < 1:
            raise ValueError(f'`seeds` must be a positive integer. Received: seeds={FLAGS.seeds}')
        settings['seeds'] = FLAGS.seeds
    log = pathlib.Path(FLAGS.log or f'{FLAGS.out}/{experiment.name}-{size}.jsonl').expanduser()
    if FLAGS.render and not log.exists():
        raise ValueError(
            '`log` must be there for --render; --out=examples/results/lab has the logged runs. '
            f'Received: log={log}'
        )
    if not FLAGS.render:
        log.parent.mkdir(parents=True, exist_ok=True)
        train_missing(experiment, settings, log)
    runs = whole_seeds(experiment, settings, read_log(experiment, settings, log), log)
    verdicts = [claim.judge(runs) for claim in experiment.claims]
    save_figure(experiment.draw(runs), log)
    print(f'{experiment.question} ({experiment.source})')
    for claim, verdict in zip(experiment.claims, verdicts, strict=True):
        print(f'claim: {claim.text}\nrule: {claim.rule}')
        print(f'{verdict}, n={count_seeds(runs)}: {verdict.because}')
    return verdicts


def train_missing(experiment: Experiment, settings: Settings, log: pathlib.Path) -> None:
    """Appends the runs that the log lacks."""
    code = hardware.provenance()
    device = devices.select_device(FLAGS.device)
    dataset = data.load(FLAGS.dataset, FLAGS.data_dir)
    count = len(dataset.train_images)
    if experiment.needs_all and count < settings['limit']:
        raise ValueError(
            f'`dataset` must have {settings["limit"]} training images or more. '
            f'Received: {dataset.name}, {count} images'
        )
    if settings['limit'] < count:
        dataset = dataset.limit(settings['limit'])
    about = {
        'experiment': experiment.name,
        'settings': fixed(settings),
        'dataset': dataset.name,
        'backend': keras.backend.backend(),
        'precision': precision.set_precision(experiment.precision, device),
        'hardware': hardware.describe(device, training.default_replicas().count),
        'data_digest': dataset.digest(),
    }
    shared = {'shared_machine': True} if FLAGS.shared_machine else {}
    runlog.start_log(log)
    with runlog.locked(log):
        lines = runlog.read_lines(log)
        check_lines(log, lines, about)
        for seed in range(settings['seeds']):
            while variants := missing(experiment, settings, lines, seed):
                variant = variants[0]
                keras.utils.clear_session()
                precision.set_precision(about['precision'])  # which the line above has reset
                keras.utils.set_random_seed(seed)
                began = time.perf_counter()
                result = experiment.train(settings, variant, seed, dataset)
                seconds = round(time.perf_counter() - began, 1)
                line = {**about, **code, **shared, 'variant': variant, 'seed': seed}
                line |= {'result': result, 'seconds': seconds}
                runlog.append_line(log, line)
                lines.append(line)
                print(f'{variant}, seed {seed}: {seconds} s', flush=True)


def missing(experiment, settings, lines, seed):
    """The variants of a seed that are not among the lines of a log."""
    of_seed = [line for line in lines if line['seed'] == seed]
    done = [line['variant'] for line in of_seed]
    runs = [as_run(line) for line in of_seed]
    wanted = [*experiment.variants(settings), *experiment.more(settings, runs)]
    return [variant for variant in wanted if variant not in done]


def as_run(line):
    return {**line['variant'], 'seed': line['seed'], **line['result']}


def read_log(experiment: Experiment, settings: Settings, log: pathlib.Path) -> list[Run]:
    """The lines of a log, all of them of these settings and of one hardware."""
    lines = runlog.read_lines(log)
    about = {'experiment': experiment.name, 'settings': fixed(settings)}
    about |= {key: line.get(key) for line in lines[:1] for key in CONDITIONS}
    check_lines(log, lines, about)
    return lines


def fixed(settings: Settings) -> Settings:
    """The settings but the number of seeds, to which more may be added."""
    return {key: value for key, value in settings.items() if key != 'seeds'}


def check_lines(log, lines, about):
    """Raises where the log holds a run that differs in one of `about`."""
    for line in lines:
        runlog.check_same(log, line, about, newer=('data_digest',))
        for key, kind in (('variant', dict), ('seed', int), ('result', dict)):
            if not isinstance(line.get(key), kind):
                raise ValueError(
                    f'`log` must hold runs, each with its {key}. '
                    f'Received: log={log}, with {key}={line.get(key)!r}'
                )


def whole_seeds(experiment, settings, lines, log):
    """The runs of the seeds of which none is missing."""
    seeds = sorted({line['seed'] for line in lines})
    whole = {seed for seed in seeds if not missing(experiment, settings, lines, seed)}
    if not whole:
        raise ValueError(
            f'`log` must hold all runs of a seed, for a verdict. Received: log={log}, '
            f'with {len(lines)} runs'
        )
    return [as_run(line) for line in lines if line['seed'] in whole]


def count_seeds(runs: list[Run]) -> int:
    return len({run['seed'] for run in runs})


def save_figure(figure: Any, log: pathlib.Path) -> None:
    """Writes a figure beside a log, as PNG and as SVG; it names the log by its digest."""
    import matplotlib

    about = {'Description': f'runs {digest(log)}'}
    with matplotlib.rc_context({'svg.hashsalt': 'fenwicks'}):  # the same bytes each time
        for ending, more in (('png', {}), ('svg', {'Date': None})):
            with runlog.written_whole(
                log.with_name(f'{log.name.removesuffix(".jsonl")}.{ending}')
            ) as part:
                figure.savefig(part, format=ending, metadata={**about, **more})


def digest(log: pathlib.Path) -> str:
    """What tells a log from others; the figures of it contain this."""
    return hashlib.sha256(log.read_bytes()).hexdigest()[:16]
