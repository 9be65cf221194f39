"""Writes the tables of the README files from the logged runs under examples/results/.

python examples/tables.py           # rewrite the tables
python examples/tables.py --check   # fail where a README differs from the runs
"""

from __future__ import annotations

import startup  # noqa: F401

import dataclasses
import json
import re
import statistics
import textwrap

import ablation_tables
import data_tables
import gpu_tables
import lab_tables
import logged
import search_tables
import streaming_tables
import under_fire_tables
from absl import flags

from fenwicks import command, recipes, runlog, tpu
from fenwicks.tpu import table

FLAGS = flags.FLAGS
flags.DEFINE_bool('check', False, 'Change nothing; fail where a README differs.')

ROOT = logged.RESULTS.parent.parent
READMES = (
    'README.md',
    'examples/benchmarks/README.md',
    'examples/lab/README.md',
    'examples/results/README.md',
    'fenwicks/diagnostics/README.md',
    'fenwicks/tpu/README.md',
    'tests/README.md',
)


def runs_table():
    """One row for each setting that was run, over its seeds; of a recipe as it is today."""
    keys = ('recipe', 'dataset', 'epochs', 'train_images', 'hardware', 'backend', 'precision')
    rows = []
    for group in logged.grouped(filter(logged.is_as_today, logged.all_runs()), keys):
        run = group[0]
        rows.append(
            [
                logged.title(run),
                f'{run["dataset"]}, {run["train_images"]:,} images',
                run['epochs'],
                f'{run["hardware"]}, {run["backend"]}, {run["precision"]}',
                len(group),
                runlog.mean_and_error([100 * run['test_accuracy'] for run in group]),
                logged.seconds_alone(group) or 'not timed alone',
                logged.commits(group),
            ]
        )
    header = ['recipe', 'data', 'epochs', 'hardware', 'n', 'test accuracy, %', 'training, s']
    return runlog.markdown([*header, 'commit'], rows)


def throughput_table():
    """One row for each logged comparison with PyTorch."""
    rows = [
        [
            line['hardware'],
            line['precision'],
            line['batch_size'],
            f'{line["fenwicks_images_per_second"]:.0f}',
            f'{line["pytorch_images_per_second"]:.0f}',
            f'{line["ratio"]:.2f}',
            f'{line["fenwicks_peak_memory_mb"] / 1024:.1f}',
            f'{line["pytorch_peak_memory_mb"] / 1024:.1f}',
        ]
        for line in logged.read('throughput.jsonl')
    ]
    header = ['hardware', 'precision', 'batch', 'fenwicks, images/s', 'PyTorch, images/s']
    return runlog.markdown([*header, 'speed, ratio', 'fenwicks, GiB', 'PyTorch, GiB'], rows)


def time_to_94_table():
    """One row for each session in which fenwicks and PyTorch took turns at a recipe."""
    rows = []
    sessions: dict = {}
    for line in logged.read('time_to_94.jsonl'):
        key = tuple(line[name] for name in ('session', 'hardware', 'precision'))
        sessions.setdefault(key, {'fenwicks': [], 'pytorch': []})[line['side']].append(line)
    for (_, hardware, precision), sides in sorted(sessions.items()):
        if not all(sides.values()):  # stopped before both had their turn
            continue
        seconds = {
            side: statistics.median(line['train_seconds'] for line in lines)
            for side, lines in sides.items()
        }
        ours, theirs = (
            f'`{lines[0]["recipe"]}`, {lines[0]["epochs"]} epochs' for lines in sides.values()
        )
        trained = ours if ours == theirs else f"{ours}; PyTorch's: {theirs}"
        how = 'projected' if sides['fenwicks'][0].get('projected') else 'trained'
        rows.append(
            [
                *(trained, hardware, precision, how),
                *(f'{seconds[side]:,.0f}' for side in ('fenwicks', 'pytorch')),
                f'{seconds["fenwicks"] / seconds["pytorch"]:.2f}',
            ]
        )
    header = ['recipe', 'hardware', 'precision', 'how', 'fenwicks, s of training']
    return runlog.markdown([*header, 'PyTorch, s of training', 'time, ratio'], rows)


def startup_table():
    """One row for each logged measurement of start, evaluation and memory."""
    rows = [
        [
            f'`{line["recipe"]}`',
            line['hardware'],
            line['precision'],
            line['batch_size'],
            f'{line["first_step_seconds"]:.1f}',
            f'{line["eval_seconds"]:.1f}',
            f'{line["peak_memory_mb"] / 1024:.1f}',
        ]
        for line in logged.read('startup.jsonl')
    ]
    header = ['recipe', 'hardware', 'precision', 'batch', 'command to first step, s']
    return runlog.markdown([*header, '10,000 test images, s', 'peak memory, GiB'], rows)


def host_work_table():
    """One row for each logged measurement of the host's work in an epoch."""
    rows = [
        [
            f'`{line["recipe"]}`',
            line['backend'],
            line['hardware'],
            line['variables'],
            f'{line["milliseconds"]:.1f}',
            f'{line["slowest_milliseconds"]:.1f}',
            *(
                f'{line[name]:.1f}' if name in line else 'not measured'
                for name in ('fit_milliseconds', 'validation_milliseconds')
            ),
        ]
        for line in logged.read('host_work.jsonl')
    ]
    header = ['recipe', 'backend', 'hardware', 'variables', 'ms an epoch, median', 'slowest']
    return runlog.markdown([*header, 'more in `fit`', 'scoring one image'], rows)


def second_start_table():
    """One row for each logged pair of starts: without remembered programs, and with them."""

    def seconds(start):
        return f'{start["first_step_seconds"] - start["train_seconds"]:.1f}'

    rows = [
        [
            f'`{line["recipe"]}`, {line["dataset"]}',
            line['backend'],
            line['hardware'],
            *(seconds(line[start]) for start in ('first', 'second')),
            *(f'{line[start]["compile_seconds"]:.1f}' for start in ('first', 'second')),
        ]
        for line in logged.read('second_start.jsonl')
    ]
    header = ['recipe', 'backend', 'hardware', 'before the first step, s', 'at the second start']
    return runlog.markdown([*header, 'compilation, s', 'at the second start'], rows)


def devices_table():
    """One row for each device, framework and recipe: what was measured there, or estimated."""
    rows = []
    keys = ('hardware', 'backend', 'precision', 'recipe', 'epochs')
    for group in logged.grouped(logged.whole_runs(), keys):
        accuracy = runlog.mean_and_error([100 * run['test_accuracy'] for run in group])
        figures = f'{accuracy} % (n = {len(group)})'
        if took := logged.seconds_alone(group, ' s of training'):
            seconds = statistics.median(run['train_seconds'] for run in logged.undisturbed(group))
            steps = round(group[0]['train_images'] // group[0]['batch_size'] * group[0]['epochs'])
            speed = steps * group[0]['batch_size'] / seconds
            figures += f', {took}, {speed:,.0f} images/s'
        rows.append(device_row(group[0], figures, 'measured'))
    for line in logged.read('tpu_estimates.jsonl'):
        figures = (
            f'{1e3 * line["step_seconds"]:.2f} ms a step of {line["batch_size"]} images, '
            f'{logged.seconds_text(line["run_seconds"])} s of training'
        )
        rows.append(device_row(line, figures, 'estimated'))
    header = ['device', 'backend', 'recipe', 'how to start', 'figures', '']
    return runlog.markdown(header, rows)


def estimates_table():
    """What `python -m fenwicks.tpu` printed for the tutorial's recipe."""
    lines = [
        line
        for line in logged.read('tpu_estimates.jsonl')
        if (line['recipe'], line['backend']) == ('fenwicks24', 'jax')
    ]
    fields = [field.name for field in dataclasses.fields(tpu.Estimate)]
    rows = [table.row(tpu.Estimate(**{name: line[name] for name in fields})) for line in lines]
    return '\n'.join(['```text', table.HEADER, *rows, '', table.NOTE, '```'])


def device_row(line, figures, how):
    """A row of the devices' table for a logged run or estimate."""
    kind = line.get('device', 'tpu')
    command = [f'KERAS_BACKEND={line["backend"]} ...']
    if line['recipe'] in recipes.PRESETS and line['epochs'] != recipes.get(line['recipe']).epochs:
        command.append(f'--epochs={line["epochs"]}')
    if logged.has_other_batch(line):
        command.append(f'--batch_size={line["batch_size"]}')
    if kind != 'cpu':
        command.append(f'--device={kind}')
    return [
        f'{line["hardware"]}, {line["precision"]}',
        line['backend'],
        f'{logged.title(line)}, {line["epochs"]} epochs',
        '–' if line.get('variant') else f'`{" ".join(command)}`',
        figures,
        how,
    ]


def profile_table(processor):
    """One row for each kind of work in a step: its time with each set of kernels, by recipe."""
    columns = {
        (line['recipe'], line.get('image_size', 32), line['precision'], line['kernels']): line
        for line in logged.read('profile.jsonl')
        if line['hardware'].startswith(processor)
    }
    names = {'stock': "TensorFlow's", 'fenwicks': "fenwicks's"}
    header = ['ms a step'] + [
        f'`{recipe}`, {side}x{side}, {precision}, {names[kernels]}'
        for recipe, side, precision, kernels in columns
    ]
    lines = list(columns.values())
    kinds = list(lines[0]['milliseconds']) if lines else []
    rows = [[kind, *(f'{line["milliseconds"][kind]:,.0f}' for line in lines)] for kind in kinds]
    rows = [row for row in rows if set(row[1:]) != {'0'}]
    rows += [
        ['**all, without the profiler**', *(f'{1000 * x["step_seconds"]:,.0f}' for x in lines)],
        ['images/s', *(f'{line["images_per_second"]:.0f}' for line in lines)],
        ['GFLOP/s, as sliding windows', *(f'{x["flops_per_second"] / 1e9:.0f}' for x in lines)],
        ['of a large matrix product', *(f'{line["efficiency"]:.2f}' for line in lines)],
    ]
    return runlog.markdown(header, rows)


TABLES = {
    'runs': runs_table,
    **ablation_tables.TABLES,
    'throughput': throughput_table,
    'time_to_94': time_to_94_table,
    'startup': startup_table,
    'host_work': host_work_table,
    'second_start': second_start_table,
    'devices': devices_table,
    'estimates': estimates_table,
    'profile': lambda: profile_table('AMD EPYC (avx512_bf16)'),
    'profile_amx': lambda: profile_table('Intel(R) Xeon(R) Processor (amx_bf16)'),
    'profile_without_amx': lambda: profile_table('Intel(R) Xeon(R) Processor (avx512_bf16)'),
    'profile_avx2': lambda: profile_table('AMD EPYC (avx2)'),
    **data_tables.TABLES,
    **gpu_tables.TABLES,
    **lab_tables.TABLES,
    **search_tables.TABLES,
    'streaming': streaming_tables.streaming_table,
    'overhead': streaming_tables.overhead_table,
    'under_fire': under_fire_tables.under_fire_table,
}


def fill(text):
    """`text` with each `<!-- table: NAME -->` block filled anew, also in a comment of Python."""

    def fill_one(match):
        comment, name = match[1], match[2]
        if name in ablation_tables.SENTENCES:
            lines = textwrap.wrap(ablation_tables.SENTENCES[name](), 96)
        else:
            lines = TABLES[name]().split('\n')
        lines = [f'<!-- table: {name} -->', *lines, '<!-- end of table -->']
        return '\n'.join(comment + line for line in lines)

    pattern = r'^((?:# )?)<!-- table: (\w+) -->\n.*?<!-- end of table -->'
    return re.sub(pattern, fill_one, text, flags=re.DOTALL | re.MULTILINE)


def fill_notebook(text):
    """As `fill`, of a notebook, whose cells of text are those of its twin in Python."""
    notebook = json.loads(text)
    for cell in notebook['cells']:
        if cell['cell_type'] == 'markdown':
            commented = ''.join(f'# {line}' for line in cell['source'])
            filled = fill(commented).splitlines(keepends=True)
            cell['source'] = [line[2:] for line in filled]
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + '\n'


def contents():
    """The files that hold tables, each with its text filled anew."""
    notebook = ROOT / 'colab' / 'bag_of_tricks.ipynb'
    for path in (*(ROOT / name for name in READMES), notebook.with_suffix('.py')):
        yield path, fill(path.read_text())
    yield notebook, fill_notebook(notebook.read_text())
    yield from lab_tables.scripts()


def main():
    for path, filled in contents():
        changed = filled != path.read_text()
        if FLAGS.check and changed:
            name = path.relative_to(ROOT)
            raise ValueError(f'{name} must hold the tables of the logged runs: run tables.py')
        if changed:
            runlog.write_text(path, filled)


if __name__ == '__main__':
    command.run(main, 'tables.py')
