"""The report: one page that holds everything, says what the run says, and can be read by all."""

import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from report_runs import NAMES, Page, material, result, write_run
from scripts import ROOT

from fenwicks import plots, recipes, report
from fenwicks.report import Material
from fenwicks.report import __main__ as command
from fenwicks.report.runs import find_runs, group_runs, tricks_of

LARGEST = 2_000_000  # bytes


@pytest.fixture(scope='module')
def single(tmp_path_factory):
    """The page of one run, as text."""
    folder = write_run(tmp_path_factory.mktemp('single') / 'run')
    return report.write(folder).read_text()


@pytest.fixture(scope='module')
def comparison(tmp_path_factory):
    """The page of two recipes, two seeds each, as text."""
    parent = tmp_path_factory.mktemp('several')
    for recipe, accuracy in (('page24', 0.5), ('speed94', 0.75)):
        for seed in (0, 1):
            folder = parent / f'{recipe}-{seed}'
            write_run(folder, recipe=recipe, seed=seed, accuracy=accuracy + seed / 64)
    return report.write(parent).read_text()


@pytest.fixture(params=['single', 'comparison'])
def text(request):
    return request.getfixturevalue(request.param)


def test_page_is_well_formed(text):
    page = Page(text)
    assert page.all('html') == [{'lang': 'en'}]
    assert len(page.all('title')) == len(page.all('main')) == 1


def test_page_is_small_and_needs_nothing_else(text):
    assert len(text.encode()) < LARGEST
    page = Page(text)
    assert not page.all('script')
    assert not page.all('link')
    assert not re.search(r'@import|url\((?!#)', text)
    for _, attributes in page.elements:
        for name in ('src', 'href', 'srcset', 'action'):
            assert attributes.get(name, '#').startswith(('#', 'data:'))
        assert not any(name.startswith('on') for name in attributes)


def test_headings_go_down_by_one_level(text):
    levels = [level for level, _ in Page(text).headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_every_picture_has_an_alternative(text):
    page = Page(text)
    assert page.all('svg')
    for drawing in page.all('svg'):
        assert drawing['role'] == 'img'
        assert len(drawing['aria-label']) > 20
    assert all(len(image['alt']) > 10 for image in page.all('img'))


def test_ids_are_unique_and_references_lead_somewhere(text):
    ids = [attributes['id'] for _, attributes in Page(text).elements if 'id' in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) <= set(ids)


def test_tables_name_their_columns_and_rows(text):
    page = Page(text)
    assert len(page.all('caption')) == len(page.all('table')) >= 3
    assert {cell.get('scope') for cell in page.all('th')} == {'col', 'row'}


def test_page_follows_the_scheme_of_the_reader(text):
    assert 'prefers-color-scheme: dark' in text
    assert 'color-scheme: light dark' in text
    for theme in plots.THEMES.values():
        assert f'--paper: {theme.paper};' in text
        assert f'--ink: {theme.ink};' in text
    drawings = ' '.join(re.findall(r'<svg.*?</svg>', text, re.DOTALL))
    light = plots.THEMES['light']
    assert not {light.ink, light.paper, light.faint, *light.series} & set(
        re.findall('#[0-9a-f]{6}', drawings)
    )
    assert 'var(--series0)' in drawings


def test_verdict_stands_on_top(single):
    page = Page(single)
    assert page.headings[0] == (1, 'page24 on cifar10: 93.75 %')
    top = page.text.partition('Learning curves')[0]
    for words in ('93.75 %', '61.5 s', '2,500 images/s', '50,000 images', 'Some Processor', 'cpu'):
        assert words in top


@pytest.mark.parametrize(('views', 'told'), [('doubtful', True), ('none', False), (None, False)])
def test_verdict_tells_what_the_views_at_test_time_brought(tmp_path, views, told):
    folder = write_run(tmp_path / 'run', test_accuracy_plain=0.93, test_time_augmentation=views)
    top = Page(report.write(folder).read_text()).text.partition('Learning curves')[0]
    assert ('93.00 % without test-time augmentation' in top) == told


def test_sections_of_a_run(single):
    assert [heading for level, heading in Page(single).headings if level == 2] == [
        'Recipe',
        'Learning curves',
        'Learning rate',
        'Augmented training images',
        'Confusion matrix',
        'Most confident mistakes',
        'Where the time went',
        'Reproduce this run',
    ]


def test_recipe_is_told_from_its_preset(single):
    text = Page(single).text
    assert 'What this run changed of page24 setting page24 this run epochs 24 3' in text
    assert 'warmup_epochs 5 0.625' in text
    assert '94.1 % in 75 s on a V100' in text


def test_predictions_are_shown_by_class_name(single):
    page = Page(single)
    text = page.text
    for name in NAMES:
        assert name in text
    assert 'kind a 20 95.0 kind b (1)' in text  # 20 images, one taken for `kind b`
    drawing = re.search(r'<svg[^>]*aria-label="Matrix.*?</svg>', single, re.DOTALL)[0]
    assert '10 labels by 10 predictions; 196 of 200 images' in drawing
    # The most confident of the four mistakes comes first: image 3, with a logit of 8 against 4.
    alternatives = [image['alt'] for image in page.all('img')]
    mistakes = [words for words in alternatives if words.startswith('Test image')]
    assert mistakes[0] == 'Test image 3: kind d, taken for kind e'
    assert len(mistakes) == 4
    assert 'kind e 98 %, not kind d' in text
    samples = [words for words in alternatives if words.startswith('Training image')]
    assert len(samples) == 2 * 3  # each as it is, and two versions


def test_times_add_up(single):
    table = re.search(r'<caption>Seconds of the run.*?</table>', single, re.DOTALL)[0]
    cells = re.findall(r'<td class="number">([\d.]+)</td>', table)
    assert cells == ['1.5', '2', '12.2', '15', '61.5', '77', '4.8', '6']
    assert 'first step was done 20.1 s after the start' in Page(single).text


def test_run_can_be_trained_again(single, tmp_path):
    text = Page(single).text
    assert 'Commit abcdef0123456789abcdef0123456789abcdef01.' in text
    assert 'Commit abcdef0123456789abcdef0123456789abcdef01, with' not in text
    assert '--recipe_file=' in text
    assert '--dataset=cifar10 --precision=bfloat16 --device=cpu --seed=0' in text
    assert '--limit' not in text
    assert 'keras 3.15.1' in text
    own = write_run(tmp_path / 'own', command='python examples/cifar10.py --epochs=3', clean=False)
    text = Page(report.write(own).read_text()).text
    assert 'python examples/cifar10.py --epochs=3' in text
    assert ', with changes that were not committed.' in text
    few = write_run(tmp_path / 'few', train_images=5000, batch_size=512)
    assert '--limit=5000' in report.write(few).read_text()


def test_run_without_predictions_says_so(tmp_path):
    page = Page(report.write(write_run(tmp_path / 'run', extra=False)).read_text())
    assert 'holds no report.npz' in page.text
    assert not page.all('img')


def test_run_with_the_required_keys_alone_has_a_page(tmp_path):
    whole = result()
    keys = ('recipe', 'dataset', 'test_accuracy', 'train_seconds')
    few = {key: whole[key] for key in keys}
    few['history'] = [{'epoch': 1}]
    text = Page(report.write(write_run(tmp_path / 'run', few, extra=False)).read_text()).text
    assert 'Its settings are not in the result' in text
    assert 'Learning curves' not in text


def test_recipe_of_ones_own_and_tricks_are_told(tmp_path):
    own = result()
    own['settings']['recipe'] |= {'name': 'mine', 'momentum': 0.5}
    folder = write_run(tmp_path / 'own', {**own, 'recipe': 'mine'})
    text = Page(report.write(folder).read_text()).text
    assert 'mine, a recipe of your own.' in text
    assert 'batch_size 512' in text  # all settings, also those that fenwicks24 has
    assert 'momentum 0.5' in text
    tricky = write_run(tmp_path / 'tricky', recipe='page10-whitening', epochs=10)
    text = Page(report.write(tricky).read_text()).text
    assert 'page10-whitening, 10 epochs.' in text
    assert 'This run used it as it is.' in text
    assert 'label_smoothing a fifth of the target' in text
    fast = write_run(tmp_path / 'fast', recipe='speed94')
    assert 'That of Muon, which trains the convolutions' in report.write(fast).read_text()


def test_a_pretrained_network_is_told_without_the_fields_of_another(tmp_path):
    own = result()
    own['settings']['recipe'] |= {'name': 'ResNet50', 'momentum': 0.5}
    own['settings']['pretrained'] = {'name': 'ResNet50', 'weights': 'imagenet', 'stages': 1}
    folder = write_run(tmp_path / 'own', {**own, 'recipe': 'ResNet50'})
    text = Page(report.write(folder).read_text()).text
    begun = 'a pretrained ResNet50 (weights: imagenet), fine-tuned in its last stage with fenwicks.'
    assert f'ResNet50, {begun}' in text
    assert 'momentum 0.5' in text
    assert not [field for field in ('widths', 'norm_momentum', 'activation ') if field in text]


@pytest.mark.parametrize(
    ('epochs', 'told'),
    [(0.01, '0 at epoch 0.'), (24, '0 at epoch 0, 0.4 at epoch 5, 0.000217 at epoch 24.')],
)
def test_the_schedule_is_told_as_far_as_it_goes(tmp_path, epochs, told):
    recipe = dataclasses.asdict(recipes.get('fenwicks24').with_epochs(epochs))
    folder = write_run(tmp_path / 'run', result('fenwicks24', settings={'recipe': recipe}))
    (chart,) = re.findall('Line chart of the learning rate[^"]*', report.write(folder).read_text())
    assert chart == f'Line chart of the learning rate in straight lines: {told}'


def test_validation_joins_the_curves(tmp_path):
    values = result()
    for record in values['history']:
        record |= {'val_accuracy': 0.5, 'val_loss': 1.0}
    text = report.write(write_run(tmp_path / 'run', values)).read_text()
    assert 'val accuracy from 0.5 to 0.5' in text
    assert '>validation loss<' in text


def test_comparison_has_means_errors_and_differences(comparison):
    page = Page(comparison)
    assert page.headings[0] == (1, '4 runs of 2 recipes compared')
    # sd = 1.5625 / sqrt(2) points; two standard errors of two runs are 1.5625
    assert 'page24 3 2 50.78 ± 1.56 0.25 62.00 ± 1.00' in page.text
    assert 'speed94 3 2 75.78 ± 1.56' in page.text
    assert 'batch_size 512 1000' in page.text
    assert 'network resnet9 speednet' in page.text
    assert 'nesterov' not in page.text  # which they share
    drawings = [drawing['aria-label'] for drawing in page.all('svg')]
    assert 'page24 50.78 % in 62 s; speed94 75.78 % in 62 s' in drawings[0]
    assert any('train loss by epoch: page24 ends at 0.672' in drawing for drawing in drawings)


def test_a_comparison_tells_parts_of_epochs(tmp_path):
    for name in 'ab':
        write_run(tmp_path / name, epochs=2.9)  # in three records
    assert 'page24 2.9 2 ' in Page(report.write(tmp_path).read_text()).text


def test_what_could_not_be_read_again_is_not_kept(monkeypatch):
    monkeypatch.setattr('fenwicks.report.material._MOST_BYTES', 1000)
    with pytest.raises(ValueError, match=r'^`\w+` must take at most 0 MiB: keep fewer images. Rec'):
        material(side=20)


def test_runs_of_one_recipe_that_differ_are_told_apart(tmp_path):
    write_run(tmp_path / 'a', epochs=3)
    write_run(tmp_path / 'b', epochs=4)
    text = Page(report.write(tmp_path).read_text()).text
    assert 'page24 (epochs 3, warmup_epochs 0.625)' in text
    assert 'page24 (epochs 4, warmup_epochs 0.8333)' in text
    path = report.write([tmp_path / 'a', tmp_path / 'b' / 'result.json'], tmp_path / 'p.html')
    assert path == tmp_path / 'p.html'
    assert Page(path.read_text()).text == text


def test_names_are_escaped_whatever_they_hold(tmp_path):
    hostile = '<script>alert("&")</script>'
    values = result(hardware=hostile, class_names=[hostile] * 10, command=hostile, dataset=hostile)
    values['recipe'] = values['settings']['recipe']['name'] = hostile
    values['versions'] = {hostile: hostile}
    text = report.write(write_run(tmp_path / 'a', values)).read_text()
    assert not Page(text).all('script')
    write_run(tmp_path / 'b', values={**values, 'train_seconds': 2.0})
    assert not Page(report.write(tmp_path).read_text()).all('script')


def test_texts_that_are_no_plain_utf_8_are_escaped(tmp_path, capsys):
    folder = write_run(
        tmp_path / os.fsdecode(b'caf\xe9'),
        {**result(), 'recipe': 'a\x07', 'class_names': ['\ud800', 'b\x1b\n', *NAMES[2:]]},
    )
    command.main([str(folder), str(write_run(tmp_path / 'b')), '-o', str(folder / 'both.html')])
    assert capsys.readouterr().out.endswith('caf\\udce9/both.html\n')
    assert 'caf\\udce9' in Page((folder / 'both.html').read_text()).text
    page = Page(report.write(folder).read_text())
    assert page.headings[0] == (1, 'a\\x07 on cifar10: 93.75 %')
    assert '\\ud800' in page.text


def test_hundred_classes_fit_the_page(tmp_path):
    names = [f'class number {n}' for n in range(100)]
    folder = write_run(tmp_path / 'run', extra=False, class_names=names)
    material(classes=100).save(folder)
    text = report.write(folder).read_text()
    Page(text)
    assert len(text.encode()) < LARGEST


def test_a_run_without_test_images_shows_its_samples(tmp_path):
    folder = write_run(tmp_path / 'run')
    none = np.zeros((0, 8, 8, 3), np.uint8)
    some = material()
    Material.of(np.zeros((0, 10)), np.zeros(0, int), none, some.samples, some.augmented).save(
        folder
    )
    headings = {heading for _, heading in Page(report.write(folder).read_text()).headings}
    assert 'Augmented training images' in headings
    assert not {'Confusion matrix', 'Most confident mistakes'} & headings


def test_large_images_are_reduced(tmp_path):
    folder = write_run(tmp_path / 'run', extra=False)
    material(mistakes=12, side=300).save(folder)
    text = report.write(folder).read_text()
    assert len(text.encode()) < LARGEST
    assert {(image['width'], image['height']) for image in Page(text).all('img')} == {
        ('128', '128')
    }


def test_same_run_gives_the_same_page(tmp_path):
    folder = write_run(tmp_path / 'run')
    first = report.write(folder).read_text()
    assert report.write(folder).read_text() == first


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', 'Expecting value'),
        ('{"recipe": "page24"', "Expecting ',' delimiter"),
        ('[1]', 'a list instead of an object'),
        ('{}', 'no `recipe`'),
        ('\udcff', "'utf-8' codec can't decode"),
        ({'test_accuracy': 2.0}, '`test_accuracy` of 2.0, not in [0, 1]'),
        ({'test_accuracy': None}, '`test_accuracy` that is not a finite number'),
        ({'test_accuracy': float('nan')}, '`test_accuracy` that is not a finite number'),
        ({'test_accuracy': True}, '`test_accuracy` that is not a finite number'),
        ({'recipe': 3}, '`recipe` that is not a text'),
        ({'history': []}, '`history` without an epoch'),
        ({'history': [3]}, '`history` without the record of epoch 1'),
        ({'history': [{'epoch': 1, 'train_loss': 'low'}]}, 'other things than finite numbers'),
        ({'versions': ['3.12']}, '`versions` that is not an object'),
        ({'commit': 12}, '`commit` that is not a text'),
        ({'epochs': '1'}, '`epochs` that is not a finite number'),
    ],
)
def test_damaged_results_are_named_in_a_line(tmp_path, capsys, content, message):
    (tmp_path / 'run').mkdir()
    text = content if isinstance(content, str) else json.dumps({**result(), **content})
    (tmp_path / 'run' / 'result.json').write_bytes(text.encode(errors='surrogateescape'))
    with pytest.raises(SystemExit) as raised:
        command.main([str(tmp_path / 'run')])
    line = raised.value.code
    assert line.startswith(f'fenwicks.report: {tmp_path}/run/result.json must be the result of a ')
    assert message in line
    assert '\n' not in line
    assert not (tmp_path / 'run' / 'report.html').exists()


def test_losses_that_are_no_numbers_are_left_out(tmp_path):
    good, bad = (write_run(tmp_path / name, extra=False) for name in ('good', 'bad'))
    lost = {'test_loss': float('nan'), 'history': [{'epoch': 1, 'train_loss': float('inf')}]}
    (bad / 'result.json').write_text(json.dumps({**result(), **lost}))
    assert 'test loss' not in Page(report.write(bad).read_text()).text
    assert report.write([good, bad], tmp_path / 'both.html').exists()


def test_damaged_predictions_are_named(tmp_path):
    folder = write_run(tmp_path / 'run')
    whole = (folder / 'report.npz').read_bytes()
    arrays = dict(np.load(folder / 'report.npz'))
    fewer = {name: array for name, array in arrays.items() if name != 'labels'}
    for damage in (whole[: len(whole) // 2], b'', b'text', fewer, {**arrays, 'labels': np.eye(3)}):
        if isinstance(damage, dict):
            np.savez(folder / 'report.npz', **damage)
        else:
            (folder / 'report.npz').write_bytes(damage)
        with pytest.raises(ValueError, match=r'report\.npz: must be a Material') as raised:
            report.write(folder)
        assert '\n' not in str(raised.value)
    arrays['mistakes'] = arrays['mistakes'] + 1000
    np.savez(folder / 'report.npz', **arrays)
    with pytest.raises(ValueError, match='`mistakes` must be from 0 on and below 200'):
        report.write(folder)


@pytest.mark.thorough
def test_whatever_a_value_is_there_is_a_page_or_a_line(tmp_path):
    rng = np.random.default_rng(0)
    values = [None, True, -1, 0, 3, 1e9, 0.5, '', 'x', [], [1], {}, {'a': 1}, {'recipe': 3}]
    folder = write_run(tmp_path / 'run', extra=False)
    for key in [*result(), 'command']:
        for _ in range(2):
            changed = {**result(), key: values[rng.integers(len(values))]}
            (folder / 'result.json').write_text(json.dumps(changed))
            try:
                page = report.write(folder)
            except ValueError as error:
                message = str(error)
            else:
                message = ''
                Page(page.read_text())
            assert not message or 'result.json must be' in message


def test_folders_without_a_run_are_named(tmp_path, capsys):
    empty = tmp_path / 'empty'
    empty.mkdir()
    for path, what in ((empty, 'no result.json in it'), (tmp_path / 'none', 'no such folder')):
        with pytest.raises(SystemExit) as raised:
            command.main([str(path)])
        assert raised.value.code == (
            f'fenwicks.report: a run must be a folder with a result.json. Received: {path}, {what}'
        )


def test_command_writes_where_it_is_told(tmp_path, capsys):
    write_run(tmp_path / 'a')
    command.main([str(tmp_path / 'a')])
    assert capsys.readouterr().out == f'{tmp_path}/a/report.html\n'
    command.main([str(tmp_path / 'a'), str(tmp_path / 'a'), '-o', str(tmp_path / 'page.html')])
    assert (tmp_path / 'page.html').read_text() == (tmp_path / 'a' / 'report.html').read_text()
    with pytest.raises(SystemExit) as raised:
        command.main([str(tmp_path / 'a'), str(tmp_path / 'a')])
    assert raised.value.code.startswith('fenwicks.report: `out` must be given for several runs')
    with pytest.raises(SystemExit) as raised:
        command.main([])
    assert raised.value.code == 'fenwicks.report: the following arguments are required: RUN'


@pytest.mark.thorough
def test_without_matplotlib_material_is_saved_and_the_page_asks_for_it(tmp_path):
    write_run(tmp_path / 'run')
    code = (
        'import sys; sys.modules["matplotlib"] = None; sys.path.insert(0, "tests")\n'
        'from fenwicks import report; import report_runs\n'
        f'report_runs.material().save({str(tmp_path / "run")!r})\n'
        f'try: report.write({str(tmp_path / "run")!r})\n'
        'except ImportError as error: print(error)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == 'plots need Matplotlib: pip install matplotlib\n'


@pytest.mark.parametrize('name', recipes.PRESETS)
def test_the_tricks_of_a_published_recipe_are_its_own(name):
    recipe = recipes.get(name)
    assert tricks_of(recipe) == list(recipes.PRESETS[name].tricks)
    assert tricks_of(recipe.with_epochs(3).with_width(0.25)) == tricks_of(recipe)


def test_the_tricks_of_a_changed_recipe():
    recipe = recipes.get('page24', added=['celu', 'jitter'])
    assert tricks_of(recipe) == ['celu', 'jitter']
    assert 'celu' not in tricks_of(recipes.get('page10', removed=['celu']))
    assert tricks_of(dataclasses.replace(recipe, name='mine')) == []


def test_folders_in_any_sequence(tmp_path):
    folders = [write_run(tmp_path / name, extra=False) for name in 'ab']
    pages = [
        report.write(given, tmp_path / 'page.html').read_text()
        for given in (folders, tuple(folders), map(str, folders))
    ]
    assert pages[0] == pages[1] == pages[2]
    for nothing in ([], (), 5, None, b'run', [5]):
        with pytest.raises(ValueError, match=r'^`runs` must be the folder of a run, or a list of'):
            report.write(nothing, tmp_path / 'page.html')


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('none/x.html', '`path` must lie in a folder that exists'),
        ('', '`path` must be the path of a f'),
        ('run/result.json', r'`path` must end in \.html\. Received: path='),
    ],
)
def test_a_page_that_cannot_be_written_is_refused_before_the_work(tmp_path, path, message):
    folder = write_run(tmp_path / 'run', extra=False)
    before = (folder / 'result.json').read_bytes()
    with pytest.raises(ValueError, match=message):
        report.write(folder, tmp_path / path)
    assert (folder / 'result.json').read_bytes() == before


def test_a_page_that_nobody_may_write_is_refused_before_the_work(tmp_path, denied, monkeypatch):
    write_run(tmp_path / 'run')
    monkeypatch.setattr('fenwicks.report.pages.page', lambda _: pytest.fail('it was drawn'))
    with pytest.raises(SystemExit, match=r'`out` must lie in a folder that can be written to\. R'):
        command.main([str(tmp_path / 'run'), '-o', str(denied / 'page.html')])


def test_runs_on_other_data_are_not_averaged(tmp_path):
    for number, digest in enumerate(('aaa', 'bbb')):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = {**result(accuracy=0.5 + 0.4 * number), 'data_digest': digest}
        (folder / 'result.json').write_text(json.dumps(found))
    groups = group_runs(find_runs([tmp_path]))
    assert [len(group.runs) for group in groups] == [1, 1]
    assert groups[0].name == 'page24 (data_digest aaa)'


def test_folds_are_runs_of_one_group(tmp_path):
    """They differ in their images, as folds must; each was a recipe of its own, n = 1."""
    for seed in (0, 1):
        for fold in range(3):
            values = result(train_images=20 + fold % 2, data_digest=f'{seed}{fold}')
            values['settings'] = {'recipe': values['settings']['recipe']}
            values['settings']['split'] = [seed, fold, 3]
            write_run(tmp_path / f'{seed}-{fold}', values, extra=False)
    groups = group_runs(find_runs([tmp_path]))
    assert [len(group.runs) for group in groups] == [3, 3]
    assert [group.name for group in groups] == ['page24 (split 0/3)', 'page24 (split 1/3)']


def test_a_link_to_a_run_is_that_run(tmp_path):
    (tmp_path / '1').mkdir()
    (tmp_path / '1' / 'result.json').write_text(json.dumps(result()))
    (tmp_path / 'latest').symlink_to('1')
    assert [run.folder.name for run in find_runs([tmp_path])] == ['1']


def test_the_page_of_a_result_lies_beside_it(tmp_path):
    (tmp_path / 'result.json').write_text(json.dumps(result()))
    assert report.write(tmp_path / 'result.json') == tmp_path / 'report.html'


def test_logits_that_are_no_numbers_are_not_called_right(tmp_path):
    images = np.zeros((5, 8, 8, 3), np.uint8)
    labels = np.array([0, 1, 0, 1, 1])
    logits = np.full((5, 2), np.nan)
    found = Material.of(logits, labels, images, images[:1], np.stack([images[:1]]))
    found.save(tmp_path)
    (tmp_path / 'result.json').write_text(json.dumps({**result(), 'class_names': ['a', 'b']}))
    text = report.write(tmp_path).read_text()
    assert 'every test image is classified correctly' not in text
    assert 'no mistake has a probability that is a number' in text
