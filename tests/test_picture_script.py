"""The script that renders a page to a picture."""

import pytest
from PIL import Image
from scripts import ROOT, loaded


@pytest.fixture(scope='module')
def script():
    with loaded(ROOT / 'examples' / 'picture.py') as module:
        yield module


def test_a_page_becomes_a_small_picture(script, tmp_path, capsys):
    try:
        script.browser()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    page, out = tmp_path / 'page.html', tmp_path / 'page.png'
    page.write_text('<body style="margin: 0; background: #f00"><p style="height: 50px"></p>')
    script.main([str(page), f'--out={out}', '--size=300x200'])
    assert capsys.readouterr().out.split() == [str(out)]
    image = Image.open(out)
    assert image.size == (300, 200)
    assert image.convert('RGB').getpixel((150, 100)) == (255, 0, 0)


def test_the_page_is_not_drawn_over(script, tmp_path):
    page = tmp_path / 'page.html'
    page.write_text('<p>text</p>')
    with pytest.raises(SystemExit) as raised:
        script.main([str(page), f'--out={page}'])
    assert raised.value.code == f'picture.py: `out` must end in .png. Received: out={page}'
    assert page.read_text() == '<p>text</p>'


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        (['none.html'], 'PAGE must be a file. Received: none.html'),
        (
            ['none.html', '--size=300'],
            '`size` must be WIDTHxHEIGHT in pixels. Received: size=300',
        ),
    ],
)
def test_wrong_arguments_are_one_line(script, tmp_path, arguments, line):
    with pytest.raises(SystemExit) as raised:
        script.main([*arguments, f'--out={tmp_path / "out.png"}'])
    assert raised.value.code == f'picture.py: {line}'


def test_a_missing_browser_is_said(script, monkeypatch):
    monkeypatch.setattr(script, 'BROWSERS', ())
    monkeypatch.delenv('CHROMIUM', raising=False)
    with pytest.raises(FileNotFoundError, match='a Chromium must be installed'):
        script.browser()


def test_the_picture_in_the_readme_is_small():
    picture = ROOT / 'examples' / 'results' / 'report.png'
    assert picture.stat().st_size < 150_000
    assert 'examples/results/report.png' in (ROOT / 'README.md').read_text()
