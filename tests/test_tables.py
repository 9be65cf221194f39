"""The tables of the README: a row for each setting, measured and estimated apart."""

import dataclasses
import json

import pytest
from scripts import ROOT, loaded, refused

from fenwicks import recipes, runlog, tpu

RUN = {
    'recipe': 'speed94_muon',
    'widths': [64, 256, 256],
    'dataset': 'cifar10',
    'train_images': 50_000,
    'epochs': 8,
    'batch_size': 2000,
    'backend': 'tensorflow',
    'device': 'cpu',
    'hardware': 'AMD EPYC, 2 cores',
    'precision': 'float32',
    'test_accuracy': 0.94,
    'train_seconds': 2400.0,
}
ON_GPU = {
    'backend': 'jax',
    'device': 'gpu',
    'hardware': 'NVIDIA H100',
    'precision': 'bfloat16',
    'train_seconds': 3.25,
}
ESTIMATE = {
    'recipe': 'fenwicks24',
    'epochs': 24,
    'batch_size': 512,
    'backend': 'jax',
    'hardware': 'TPU v5e, 1 chip',
    'devices': 1,
    'precision': 'bfloat16',
    'step_seconds': 0.01084,
    'run_seconds': 25.23,
}


@pytest.fixture
def tables(tmp_path, monkeypatch):
    with loaded(ROOT / 'examples' / 'tables.py') as script:
        monkeypatch.setattr(script.logged, 'RESULTS', tmp_path)
        yield script


def log(folder, name, *lines):
    for line in lines:
        runlog.append_line(folder / name, line)


def rows_of(table):
    _, _, *rows = table.splitlines()
    return [row.strip('| ').split(' | ') for row in rows]


@pytest.mark.parametrize('held', [None, 3, []])
def test_a_run_whose_settings_are_none_has_none(tables, held):
    assert tables.logged.settings({**RUN, 'settings': held}) is None


def test_no_logs_no_rows(tables):
    empty = tables.devices_table()
    assert empty.startswith('| device | backend | recipe | how to start | figures |  |')
    assert rows_of(empty) == []


def test_measured_devices(tables, tmp_path):
    log(
        tmp_path,
        'runs.jsonl',
        RUN,
        {**RUN, 'test_accuracy': 0.942, 'train_seconds': 9999.0, 'shared_machine': True},
        {**RUN, 'train_images': 2560},  # a trial
    )
    log(tmp_path, 'gpu.jsonl', {**RUN, **ON_GPU}, {**RUN, **ON_GPU, 'backend': 'torch'})
    assert rows_of(tables.devices_table()) == [
        [
            *('AMD EPYC, 2 cores, float32', 'tensorflow', '`speed94_muon`, 8 epochs'),
            '`KERAS_BACKEND=tensorflow ...`',
            '94.10 ± 0.20 % (n = 2), 2,400 s of training (n = 1), 167 images/s',
            'measured',
        ],
        [
            *('NVIDIA H100, bfloat16', 'jax', '`speed94_muon`, 8 epochs'),
            '`KERAS_BACKEND=jax ... --device=gpu`',
            '94.00 % (n = 1), 3.25 s of training, 123,077 images/s',
            'measured',
        ],
    ]


def test_gpus_beside_pytorch(tables, tmp_path):
    """Each side by itself; a mean of all runs, seconds of those that had the GPU to themselves."""
    run = {**RUN, **ON_GPU, 'side': 'fenwicks', 'device_memory_mb': 900}
    theirs = {**run, 'side': 'pytorch', 'backend': 'pytorch, compiled', 'device_memory_mb': 1700}
    shared = {'test_accuracy': 0.942, 'train_seconds': 30.0, 'shared_machine': True}
    log(tmp_path, 'gpu.jsonl', run, {**run, **shared}, {**run, 'train_seconds': 3.75})
    log(tmp_path, 'gpu.jsonl', {**theirs, **shared})
    common = '`speed94_muon`, 8 epochs'
    assert rows_of(tables.TABLES['gpu']()) == [
        [
            *(common, 'fenwicks, jax', 'NVIDIA H100, bfloat16', '3', '94.07 ± 0.13'),
            *('3.5 (n = 2)', '900'),
        ],
        [
            *(common, 'PyTorch, compiled', 'NVIDIA H100, bfloat16', '1', '94.20'),
            *('not timed alone', '1700'),
        ],
    ]
    (row,) = rows_of(tables.runs_table())  # of fenwicks alone
    assert row[4:7] == ['3', '94.07 ± 0.13', '3.5 (n = 2)']


def test_the_pairs_of_two_precisions_are_of_processors(tables, tmp_path):
    run = {**RUN, 'recipe': 'speed94', 'batch_size': 1000, 'seed': 3}
    log(tmp_path, 'runs.jsonl', run, {**run, 'precision': 'bfloat16', 'test_accuracy': 0.939})
    log(tmp_path, 'gpu.jsonl', {**run, **ON_GPU, 'test_accuracy': 0.5})
    first, *_, last = rows_of(tables.TABLES['rounding_pairs']())
    assert first == ['3', '94.00', '93.90', '-0.10']
    assert last[0] == 'all 1 and 1'


def test_the_pairs_of_two_precisions_are_of_the_recipe_as_it_is(tables, tmp_path):
    run = {**RUN, 'recipe': 'speed94', 'batch_size': 1000, 'seed': 3}
    log(tmp_path, 'runs.jsonl', run, {**run, 'precision': 'bfloat16', 'variant': 'another'})
    assert tables.TABLES['rounding_pairs']() == tables.logged.NOT_YET


def test_a_run_of_the_rounding_study_that_diverged_is_left_out(tables, tmp_path):
    accuracies = {'float32': 0.94, 'sliding': 0.939, 'winograd': 0.938}
    lines = [
        {'arm': arm, 'seed': seed, 'test_accuracy': accuracy}
        for arm, accuracy in accuracies.items()
        for seed in range(2)
    ]
    log(tmp_path, 'rounding_study.jsonl', *lines[:-1], {**lines[-1], 'test_accuracy': None})
    assert rows_of(tables.TABLES['rounding_study']()) == [
        ['0', '94.00', '93.90', '93.80'],
        ['mean', '94.00', '93.90', '93.80'],
        ['less float32, points', '', '-0.10', '-0.20'],
        ['less sliding windows, points', '', '', '-0.10'],
    ]


def test_runs_of_several_commits(tables, tmp_path):
    one = {**RUN, 'commit': 'a' * 40, 'clean': True}
    log(tmp_path, 'runs.jsonl', RUN, one, {**one, 'commit': 'b' * 40, 'clean': False})
    (row,) = rows_of(tables.runs_table())
    assert row[4] == '3'
    assert row[-1] == 'aaaaaaa, bbbbbbb+, not logged'
    log(tmp_path, 'runs.jsonl', *({**one, 'commit': c * 40} for c in 'cd'))
    assert rows_of(tables.runs_table())[0][-1] == '5 commits'


def test_runs_of_other_settings_have_rows_of_their_own(tables, tmp_path):
    fields = dataclasses.asdict(recipes.get('speed94_muon'))
    now, then = ({'settings': {'recipe': {**fields, 'momentum': m}}} for m in (0.85, 0.8))
    former = {'variant': 'with a whitening in bfloat16'}
    log(tmp_path, 'runs.jsonl', RUN, {**RUN, **now}, {**RUN, **then}, {**RUN, **former})
    titles = [row[2] for row in rows_of(tables.devices_table())]
    assert len(titles) == 4
    assert titles.count('`speed94_muon`, with a whitening in bfloat16, 8 epochs') == 1
    rows = rows_of(tables.runs_table())  # of the settings of today only
    assert [row[0] for row in rows] == ['`speed94_muon`'] * 2
    reached = tables.logged.reached()
    assert reached == {
        'speed94_muon': '94.00 % (n = 1) in 8 epochs on AMD EPYC, 2 cores, tensorflow, float32, '
        '2,400 s of training'
    }


def test_other_networks_and_batches_have_rows_of_their_own(tables, tmp_path):
    others = ({'widths': [32, 128, 128]}, {'batch_size': 500})
    log(tmp_path, 'runs.jsonl', RUN, *({**RUN, **other} for other in others))
    assert len(rows_of(tables.devices_table())) == 3
    assert len(rows_of(tables.runs_table())) == 1


def test_other_epochs_are_a_flag(tables, tmp_path):
    log(tmp_path, 'runs.jsonl', {**RUN, 'epochs': 2}, {**RUN, 'recipe': 'speed94_muon-celu'})
    starts = {row[2]: row[3] for row in rows_of(tables.devices_table())}
    assert starts == {
        '`speed94_muon`, 2 epochs': '`KERAS_BACKEND=tensorflow ... --epochs=2`',
        '`speed94_muon-celu`, 8 epochs': '`KERAS_BACKEND=tensorflow ...`',
    }


def test_other_numbers_of_devices_have_rows_of_their_own(tables, tmp_path):
    run = {**RUN, **ON_GPU}
    log(tmp_path, 'gpu.jsonl', run, {**run, 'replicas': 1}, {**run, 'replicas': 8})
    assert [row[4] for row in rows_of(tables.runs_table())] == ['2', '1']


def test_an_argument_that_is_no_flag(tables):
    assert refused(tables, 'check') == 'there are no arguments besides flags. Received: check'


def test_estimated_devices(tables, tmp_path):
    eight = {'hardware': 'TPU v5e, 8 chips', 'devices': 8, 'step_seconds': 0.00244}
    log(tmp_path, 'tpu_estimates.jsonl', ESTIMATE, {**ESTIMATE, **eight})
    one, several = rows_of(tables.devices_table())
    assert one == [
        *('TPU v5e, 1 chip, bfloat16', 'jax', '`fenwicks24`, 24 epochs'),
        '`KERAS_BACKEND=jax ... --device=tpu`',
        '10.84 ms a step of 512 images, 25.2 s of training',
        'estimated',
    ]
    assert several[0] == 'TPU v5e, 8 chips, bfloat16'
    assert several[4].startswith('2.44 ms')


def test_tensorflow_on_a_tpu(tables, tmp_path):
    log(tmp_path, 'tpu_estimates.jsonl', {**ESTIMATE, 'backend': 'tensorflow'})
    start = rows_of(tables.devices_table())[0][3]
    assert start == '`KERAS_BACKEND=tensorflow ... --device=tpu`'


def test_estimates_as_the_command_prints_them(tables, tmp_path):
    found = dict.fromkeys((field.name for field in dataclasses.fields(tpu.Estimate)), 1e12)
    found |= {'topology': 'v5e:1x1', 'fits': True, 'memory_bytes': 2**29, **ESTIMATE}
    log(tmp_path, 'tpu_estimates.jsonl', found, {**found, 'backend': 'tensorflow'})
    first, header, row, *_, last = tables.estimates_table().splitlines()
    assert (first, last) == ('```text', '```')
    assert header.startswith('topology')
    assert row.startswith('v5e:1x1     1        yes   0.50 of')


def test_the_readme_is_filled(tables, tmp_path):
    log(tmp_path, 'tpu_estimates.jsonl', ESTIMATE)
    text = 'before\n<!-- table: devices -->\nold\n<!-- end of table -->\nafter\n'
    filled = tables.fill(text)
    assert filled.startswith('before\n<!-- table: devices -->\n| device |')
    assert filled.endswith('estimated |\n<!-- end of table -->\nafter\n')
    assert tables.fill(filled) == filled


def test_turns_with_pytorch(tables, tmp_path):
    setting = {'session': '1', 'recipe': 'speed94_muon', 'epochs': 8, 'hardware': 'AMD EPYC'}
    setting['precision'] = 'bfloat16'
    log(
        tmp_path,
        'time_to_94.jsonl',
        {**setting, 'side': 'fenwicks', 'train_seconds': 800.0},
        {**setting, 'side': 'pytorch', 'train_seconds': 1000.0},
        {**setting, 'side': 'fenwicks', 'train_seconds': 900.0},
        {**setting, 'side': 'fenwicks', 'session': 'stopped', 'train_seconds': 700.0},
    )
    assert rows_of(tables.time_to_94_table()) == [
        ['`speed94_muon`, 8 epochs', 'AMD EPYC', 'bfloat16', 'trained', '850', '1,000', '0.85']
    ]


def test_rounding_before_and_after(tables, tmp_path):
    log(
        tmp_path,
        'rounding.jsonl',
        {'relative_errors': {'a': 0.5, 'b': 0.013}, 'code': 'of old'},
        {'relative_errors': {'a': 0.25, 'b': 0.01}},
    )
    assert (
        tables.TABLES['rounding']().splitlines()[0]
        == '| gradient of | off by %, of old | off by %, now |'
    )
    assert rows_of(tables.TABLES['rounding']()) == [['`a`', '50.0', '25.0'], ['`b`', '1.3', '1.0']]


def test_the_tables_of_the_logs_can_be_made():
    with loaded(ROOT / 'examples' / 'tables.py') as script:
        made = {name: make() for name, make in script.TABLES.items()}
    lines = {name: len(table.splitlines()) for name, table in made.items()}
    assert all(count > 2 for name, count in lines.items() if made[name] != 'Not logged yet.'), lines


def test_profiles_side_by_side(tables, tmp_path):
    line = {
        'recipe': 'speed94_muon',
        'precision': 'bfloat16',
        'kernels': 'stock',
        'hardware': 'AMD EPYC (avx512_bf16), 2 cores',
        'step_seconds': 4.8,
        'images_per_second': 416.7,
        'flops_per_second': 295e9,
        'efficiency': 0.741,
        'milliseconds': {'convolution, forward': 1000.4, 'head, forward': 0.2},
    }
    faster = {**line, 'kernels': 'fenwicks', 'step_seconds': 3.7}
    elsewhere = {**faster, 'hardware': 'Xeon (amx_bf16), 2 cores', 'step_seconds': 1.5}
    hidden = {**faster, 'hardware': 'Xeon (avx512_bf16), 2 cores', 'step_seconds': 4.1}
    log(tmp_path, 'profile.jsonl', line, faster, elsewhere, hidden)
    assert rows_of(tables.profile_table('AMD EPYC (avx512_bf16)')) == [
        ['convolution, forward', '1,000', '1,000'],
        ['**all, without the profiler**', '4,800', '3,700'],
        ['images/s', '417', '417'],
        ['GFLOP/s, as sliding windows', '295', '295'],
        ['of a large matrix product', '0.74', '0.74'],
    ]
    assert ['**all, without the profiler**', '1,500'] in rows_of(tables.profile_table('Xeon (amx'))


def test_tricks_and_what_they_are_worth_at_full_size(tables, tmp_path):
    header, _, *rows = tables.TABLES['tricks']().splitlines()
    assert header == '| trick | what it does | in `fenwicks` | published |'
    published = [name for name, trick in recipes.TRICKS.items() if trick.published]
    assert len(rows) == len(published)
    recipe = recipes.get('speed94')
    common = {**RUN, 'epochs': recipe.epochs, 'precision': 'bfloat16'}
    common |= {'settings': {'recipe': dataclasses.asdict(recipe)}, 'width': 1.0}

    def runs(name, accuracies, **more):
        return ({**common, **more, 'recipe': name, 'test_accuracy': each} for each in accuracies)

    plain = {'test_accuracy_plain': 0.93}
    for accuracy, one_view in ((0.94, 0.93), (0.942, 0.931)):
        log(tmp_path, 'runs.jsonl', *runs('speed94', (accuracy,), test_accuracy_plain=one_view))
    log(tmp_path, 'runs.jsonl', *runs('speed94', (0.5,), **plain, hardware='other'))
    log(tmp_path, 'ablation_full.jsonl', *runs('speed94-jitter', (0.93, 0.931)))
    log(tmp_path, 'ablation_full.jsonl', *runs('speed94-tail', (0.95,), shared_machine=True))
    header, _, *rows, blank, measured = tables.TABLES['tricks']().splitlines()
    assert header.endswith('| published | `speed94` without it |')
    ends = {row.split('`')[1]: row.split(' | ')[-1] for row in rows}
    # Variances 0.02 and 0.005, with one degree of freedom each: a deviation of 0.1118. The views of
    # one training cost 1.0 points, those of the other 1.1.
    assert ends['jitter'] == '-1.05 ± 0.22, n=2 |'
    assert ends['tail'] == '+0.90 ± 0.27, n=1 |'
    assert ends['doubtful_tta'] == '-1.05 ± 0.10, n=2 |'
    assert ends['celu'] == 'not measured |'
    assert blank == ''
    assert measured == (
        'Measured from `speed94` 94.10 ± 0.16 %: cifar10, all 50,000 images, 8.875 epochs, '
        'all of the width, bfloat16, tensorflow, AMD EPYC, 2 cores.'
    )
    ends = [row[-1].strip() for row in rows_of(tables.TABLES['ablation_full']())]
    assert ends == ['2400', '2400', '2400', '+0.90 ± 0.27']  # whose seconds don't count


def test_the_small_ablation(tables, tmp_path):
    assert tables.ablation_tables.SENTENCES['measured']() == ''
    small = {**RUN, 'train_images': 12_800, 'width': 0.25}
    for accuracy in (0.70, 0.72):
        log(tmp_path, 'ablation.jsonl', {**small, 'recipe': 'page24', 'test_accuracy': accuracy})
    assert tables.ablation_tables.SENTENCES['measured']() == (
        'Measured from `page24` 71.00 ± 2.00 %: cifar10, the first 12,800 images, 8 epochs, '
        '0.25 of the width, float32, tensorflow, AMD EPYC, 2 cores.'
    )


def test_streams_and_overhead(tables, tmp_path):
    assert tables.TABLES['streaming']() == tables.TABLES['overhead']() == 'Not logged yet.'
    common = {'hardware': 'a CPU', 'backend': 'jax', 'versions': {'keras': '3.15.1'}}
    log(
        tmp_path,
        'streaming.jsonl',
        {
            **common,
            'benchmark': 'streaming',
            'recipe': 'speed94_muon',
            'precision': 'float32',
            'resident_images_per_second': 1000.4,
            'streamed_images_per_second': 980.0,
            'ratio': 0.98,
        },
        {
            **common,
            'benchmark': 'overhead',
            'microseconds_per_step': {
                'trainer': 10.2,
                'fit': 100.0,
                'fit_with_steps_per_execution': 51.0,
            },
            'times_as_fast': {'fit': 9.8, 'fit_with_steps_per_execution': 5.0},
        },
    )
    assert rows_of(tables.TABLES['streaming']()) == [
        ['`speed94_muon`, float32, jax', 'a CPU', '1,000', '980', '0.98']
    ]
    assert rows_of(tables.TABLES['overhead']()) == [
        ['jax, Keras 3.15.1', 'a CPU', '10', '100', '51', '9.8 and 5.0']
    ]


def test_image_files_to_batches_and_augmentations(tables, tmp_path):
    assert tables.TABLES['image_data']() == tables.TABLES['augmentation']() == 'Not logged yet.'
    shared = {'hardware': 'AMD EPYC, 2 cores', 'backend': 'tensorflow'}
    rates = {'streamed': 1500.4, 'from memory by tf.data': 21000, 'ImageBatches': 22000}
    seconds = {'keras': 13.0, 'antialiased': 25.0, 'first': 10.0, 'second': 0.25}
    log(
        tmp_path,
        'image_data.jsonl',
        {'benchmark': 'image_data/batches', **rates, **shared},
        {'benchmark': 'image_data/folder', 'files': 2000, 'seconds': seconds, 'ratio': 1.3}
        | shared,
        {'benchmark': 'image_data/memory', 'passes': 3, 'resident_mb': [900, 905, 904], **shared},
    )
    assert [row[1] for row in rows_of(tables.TABLES['image_data']())] == [
        '1,500 images/s',
        '21,000 images/s',
        '22,000 images/s',
        '10.0 s, 1.30 times as fast as Keras (13.0 s)',
        '25.0 s: `decode_images` is 2.50 times as fast',
        '0.2 s',
        '900 and 904 MB',
    ]
    milliseconds = {'fenwicks': 20.0, 'step of ResNet-9, float32': 500.0}
    log(
        tmp_path,
        'augmentation.jsonl',
        {'milliseconds': milliseconds, 'batch_size': 512, **shared},
    )
    assert rows_of(tables.TABLES['augmentation']())[0][:3] == ['fenwicks', '20.0', '4.0%']


def test_leading_eigenvalues(tables, tmp_path):
    assert tables.TABLES['hessian']() == 'Not logged yet.'
    line = {'width': 0.25, 'weights': 412_000, 'images': 512, 'products': 60, 'seconds': 150.4}
    line |= {'eigenvalues': [5.0, 1.0], 'residuals': [0.01, 0.05], 'hardware': 'Xeon'}
    log(tmp_path, 'hessian.jsonl', {**line, 'backend': 'jax'})
    assert rows_of(tables.TABLES['hessian']()) == [
        ['0.25 of the width, 412,000 weights', '512', '2', '60', '0.01', '150', 'Xeon, jax']
    ]


def test_what_a_trick_is_worth(tables, tmp_path):
    said = tables.ablation_tables.SENTENCES
    assert said['worth_gelu']() == (
        '*Published:* part of a record, not separately. *Here:* not measured.'
    )
    assert said['worth_ema']() == (
        '*Published:* 94.3 % in 14 epochs, enough for 13. *Here:* not measured.'
    )
    scores = {'page24': (0.7, 0.72), 'page24+ema': (0.6, 0.62), 'page24+celu': (0.71, 0.73)}
    log(
        tmp_path,
        'ablation.jsonl',
        *(
            {**RUN, 'width': 0.25, 'recipe': recipe, 'test_accuracy': each}
            for recipe, both in scores.items()
            for each in both
        ),
    )
    assert said['worth_ema']() == (
        '*Published:* 94.3 % in 14 epochs, enough for 13. '
        '*Here, added to `page24`:* -10.00 ± 2.83 points, n=2.'
    )
    assert said['worth_celu']().endswith('`page24`:* (+1.00 ± 2.83) points, n=2, unresolved.')


def test_sentences_in_the_text_of_a_notebook(tables):
    """Wrapped, behind the hash of a comment; and the same in the notebook's cells."""
    block = '# <!-- table: worth_celu -->\n# old\n# <!-- end of table -->\n'
    text = f'# before\n{block}# after'
    filled = tables.fill(text)
    assert all(line.startswith('# ') and len(line) <= 100 for line in filled.splitlines())
    assert '# *Published:* 94.3 % in 23 epochs, enough for 20. *Here:* not measured.\n' in filled
    source = [line[2:] for line in text.splitlines(keepends=True)]
    cells = [{'cell_type': 'code', 'source': source}, {'cell_type': 'markdown', 'source': source}]
    notebook = json.loads(tables.fill_notebook(json.dumps({'cells': cells})))
    code, markdown = (''.join(cell['source']) for cell in notebook['cells'])
    assert code == ''.join(source)
    assert markdown == ''.join(line[2:] for line in filled.splitlines(keepends=True))
