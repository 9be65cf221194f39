"""Tables of parts by themselves: image files to batches, augmentations, rounding."""

from __future__ import annotations

import logged

from fenwicks import runlog


def image_data_table():
    """One row for each figure of the logged runs of image_data.py."""
    rows = []
    for line in logged.read('image_data.jsonl'):
        for what, figure in figures(line):
            rows.append([what, figure, line['hardware'], line['backend']])
    return logged.table(['what', 'figure', 'hardware', 'backend'], rows)


def figures(line):
    """What a line of the log says: pairs of what and how much."""
    part = line['benchmark'].partition('/')[2]
    if part == 'batches':
        ways = ('streamed', 'from memory by tf.data', 'ImageBatches')
        names = ('TFRecords to batches, streamed', 'decoded once, by tf.data', '`ImageBatches`')
        for name, way in zip(names, ways, strict=True):
            yield name, f'{line[way]:,.0f} images/s'
    elif part == 'folder':
        seconds = line['seconds']
        yield (
            f'{line["files"]:,} JPEGs to 224x224, `decode_images`',
            f'{seconds["first"]:.1f} s, {line["ratio"]:.2f} times as fast as Keras '
            f'({seconds["keras"]:.1f} s)',
        )
        if 'antialiased' in seconds:
            times = seconds['antialiased'] / seconds['first']
            yield (
                'tf.data, antialiased as `decode_images` does and Keras does not',
                f'{seconds["antialiased"]:.1f} s: `decode_images` is {times:.2f} times as fast',
            )
        yield 'the same at the second start', f'{seconds["second"]:.1f} s'
    else:
        first, *_, last = line['resident_mb']
        yield f'memory after 1 and {line["passes"]} streamed passes', f'{first:,} and {last:,} MB'


def augmentation_table():
    """One row for each augmentation of the logged runs of augmentation.py, beside a step."""
    rows = []
    for line in logged.read('augmentation.jsonl'):
        step = next(ms for name, ms in line['milliseconds'].items() if name.startswith('step'))
        rows += [
            [name, f'{ms:.1f}', f'{ms / step:.1%}', line['batch_size'], line['hardware']]
            for name, ms in line['milliseconds'].items()
        ]
    header = ['what', 'ms a batch', 'of a step', 'batch', 'hardware']
    return logged.table(header, rows)


def rounding_table():
    """One row for each weight: how far its gradient is from float32's, in each logged look."""
    lines = logged.read('rounding.jsonl')
    header = ['gradient of'] + [f'off by %, {line.get("code", "now")}' for line in lines]
    paths = lines[0]['relative_errors'] if lines else ()
    rows = [
        [f'`{path}`', *(f'{100 * line["relative_errors"][path]:.1f}' for line in lines)]
        for path in paths
    ]
    return runlog.markdown(header, rows)


def rounding_pairs_table():
    """The runs of `speed94` on processors, in float32 and in bfloat16: of equal seeds, and all."""
    runs = filter(logged.is_whole, logged.read('runs.jsonl'))
    runs = [run for run in runs if run['recipe'] == 'speed94' and logged.is_as_today(run)]
    exact, rounded = (
        {run['seed']: 100 * run['test_accuracy'] for run in runs if run['precision'] == precision}
        for precision in ('float32', 'bfloat16')
    )
    seeds = sorted(exact.keys() & rounded.keys())
    if not seeds:
        return logged.NOT_YET
    rows = [
        [seed, f'{exact[seed]:.2f}', f'{rounded[seed]:.2f}', f'{rounded[seed] - exact[seed]:+.2f}']
        for seed in seeds
    ]
    mean = runlog.mean_and_error([rounded[seed] - exact[seed] for seed in seeds])
    rows.append([f'these {len(seeds)}', '', '', mean])
    every = [runlog.mean_and_error(list(each.values())) for each in (exact, rounded)]
    rows.append([f'all {len(exact)} and {len(rounded)}', *every, ''])
    header = ['seed', 'float32, %', 'bfloat16, %', 'bfloat16 less float32, points']
    return runlog.markdown(header, rows)


def rounding_study_table():
    """One row for each seed of `rounding_study.py`, then the means and the paired differences."""
    arms = ('float32', 'sliding', 'winograd')
    lines = logged.finished(logged.read('rounding_study.jsonl'))
    reached = {arm: {x['seed']: x for x in lines if x['arm'] == arm} for arm in arms}
    seeds = sorted(set.intersection(*(set(reached[arm]) for arm in arms)))
    float32, sliding, winograd = runs = [[reached[arm][seed] for seed in seeds] for arm in arms]
    columns = [[100 * run['test_accuracy'] for run in each] for each in runs]
    rows = [
        [seed, *(f'{value:.2f}' for value in values)]
        for seed, *values in zip(seeds, *columns, strict=True)
    ]
    if rows:
        less = [logged.paired(each, float32) for each in (sliding, winograd)]
        rows += [
            ['mean', *map(runlog.mean_and_error, columns)],
            ['less float32, points', '', *less],
            ['less sliding windows, points', '', '', logged.paired(winograd, sliding)],
        ]
    header = ['seed', 'float32, %', 'bfloat16, sliding windows, %']
    return logged.table([*header, "bfloat16, Winograd's gradients, %"], rows)


def hessian_table():
    """One row for each logged search for the leading eigenvalues of a Hessian."""
    rows = [
        [
            f'{line["width"]:g} of the width, {line["weights"]:,} weights',
            f'{line["images"]:,}',
            len(line['eigenvalues']),
            line['products'],
            f'{max(line["residuals"]) / line["eigenvalues"][0]:.2g}',
            f'{line["seconds"]:,.0f}',
            f'{line["hardware"]}, {line["backend"]}',
        ]
        for line in logged.read('hessian.jsonl')
    ]
    header = ['ResNet-9', 'images', 'eigenvalues', 'products', 'largest residual over the first']
    return logged.table([*header, 's', 'hardware'], rows)


TABLES = {
    'hessian': hessian_table,
    'rounding': rounding_table,
    'rounding_pairs': rounding_pairs_table,
    'rounding_study': rounding_study_table,
    'image_data': image_data_table,
    'augmentation': augmentation_table,
}
