"""The gallery of the lab, from the logs under examples/results/lab/, and what its scripts say.

A log NAME-SIZE.jsonl, or NAME-SIZE-MORE.jsonl of another machine, has its figures beside it, with
the same stem. `--render` of the experiment draws them; the log's digest in them says whether they
are of this log.
"""

from __future__ import annotations

import functools
import importlib.util
import pathlib
import re
import sys
import textwrap

import logged

from fenwicks import runlog

LAB = pathlib.Path(__file__).resolve().parent / 'lab'

HEADER = re.compile(r'^Small: .*?(?=^""")', re.DOTALL | re.MULTILINE)

sys.path.insert(0, str(LAB))

import frame  # noqa: E402


def paths():
    """The scripts of the experiments."""
    return sorted(LAB.glob('[0-9][0-9]_*.py'))


@functools.cache
def experiment_of(path):
    """The experiment in a script."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EXPERIMENT


def results(experiment, size):
    """Of each log of a size: its path, its lines, the runs of whole seeds and the verdicts."""
    found = []
    for log in sorted((logged.RESULTS / 'lab').glob(f'{experiment.name}-{size}*.jsonl')):
        settings = experiment.settings(size)
        lines = frame.read_log(experiment, settings, log)
        runs = frame.whole_seeds(experiment, settings, lines, log)
        found.append((log, lines, runs, [claim.judge(runs) for claim in experiment.claims]))
    return found


def gallery():
    """A section for each experiment."""
    return '\n\n'.join(section(experiment_of(path)) for path in paths())


def section(experiment):
    """An experiment's question and claims, and for each log a figure and what it says."""
    number, words = experiment.name.split('_', 1)
    title = words.replace('_', ' ').capitalize()
    source = f'claimed in [post {int(number)}]({experiment.source})'
    parts = [f'### {int(number)}. {title}', f'{experiment.question} What was {source}:']
    parts.append(
        '\n'.join(
            f'{place}. {upper(claim.text)}. *Rule:* {claim.rule}.'
            for place, claim in enumerate(experiment.claims, 1)
        )
    )
    found = [(size, *result) for size in frame.SIZES for result in results(experiment, size)]
    parts += [shown(experiment, *each) for each in found]
    if not found:
        parts.append(f'No run is logged yet: `{command_of(experiment, "small")}`.')
    return '\n\n'.join(parts)


def upper(text):
    return text[0].upper() + text[1:]


def shown(experiment, size, log, lines, runs, verdicts):
    """The figure and the tables of a log."""
    check_figures(experiment, size, log)
    picture, drawing = (f'../results/lab/{log.stem}.{ending}' for ending in ('png', 'svg'))
    claims = [
        [place, f'**{verdict}**', upper(verdict.because)]
        for place, verdict in enumerate(verdicts, 1)
    ]
    about = [
        [
            *(size, frame.count_seeds(runs), len(lines), time_of(lines)),
            f'{lines[0]["hardware"]}, {lines[0]["backend"]}, {lines[0]["precision"]}',
            lines[0]['dataset'],
            f'`{command_of(experiment, size, runs)}`',
            logged.commits(lines),
        ]
    ]
    header = ['settings', 'n', 'runs', 'time', 'hardware', 'data', 'command', 'commit']
    return '\n\n'.join(
        [
            f'[![{experiment.question}]({picture})]({drawing})',
            runlog.markdown(['claim', 'verdict', 'numbers'], claims),
            runlog.markdown(header, about),
            settings_of(experiment, size),
        ]
    )


def check_figures(experiment, size, log):
    """Raises unless both figures of a log are there, and are of this log."""
    for ending in ('png', 'svg'):
        path = log.with_suffix(f'.{ending}')
        if not path.exists() or frame.digest(log).encode() not in path.read_bytes():
            command = command_of(experiment, size)
            raise ValueError(
                f'{path} must be the figure of its log: run {command} --render --log={log}'
            )


def command_of(experiment, size, runs=()):
    """The command that makes the runs of a log."""
    command = f'python examples/lab/{experiment.name}.py' + (' --full' if size == 'full' else '')
    seeds = frame.count_seeds(runs)
    return command + (
        f' --seeds={seeds}' if seeds not in (0, experiment.settings(size)['seeds']) else ''
    )


def time_of(lines):
    """The time of all runs together."""
    minutes = sum(line['seconds'] for line in lines) / 60
    alone = len(logged.undisturbed(lines)) == len(lines)
    said = f'{minutes:.0f} min' if minutes >= 10 else f'{minutes:.1f} min'
    return said if alone else f'{said}, others ran beside'


def settings_of(experiment, size):
    """The settings of a size, in a sentence."""
    said = ', '.join(
        f'{name} {value}' for name, value in flat(frame.fixed(experiment.settings(size)))
    )
    return f'The {size} settings: {said}.'


def flat(settings, prefix=''):
    """Name and value of each setting, those within others too."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f'{prefix}{name} ')
        elif isinstance(value, list | tuple):
            yield f'{prefix}{name}', ' '.join(map(str, value))
        else:
            yield f'{prefix}{name}', value


def scripts():
    """The scripts that say in their docstrings what is logged, with their texts filled anew."""
    for path in paths():
        text = path.read_text()
        yield path, HEADER.sub(lambda _, path=path: header(experiment_of(path)), text, count=1)


def header(experiment):
    """The last lines of a script's docstring: for each size what was found, and in what time."""
    return '\n'.join(
        '\n'.join(textwrap.wrap(f'{upper(size)}: {summary(experiment, size)}.', 100)) + '\n'
        for size in frame.SIZES
    )


def summary(experiment, size):
    """What the logs of a size say, in a line."""
    found = results(experiment, size)
    if not found:
        return 'not measured yet'
    return '; '.join(
        f'{sum(verdict.held for verdict in verdicts)} of {len(verdicts)} claims held, '
        f'n={frame.count_seeds(runs)}, {time_of(lines)} on {lines[0]["hardware"]}'
        for _, lines, runs, verdicts in found
    )


TABLES = {'gallery': gallery}
