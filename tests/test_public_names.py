"""The public face: what `dir(fenwicks)` and each public module show, what importing changes.

`public_names.txt` holds every public name. Whoever adds one adds its line:

    python tests/test_public_names.py > tests/public_names.txt
"""

import ast
import importlib
import importlib.util
import inspect
import json
import os
import pathlib
import platform
import subprocess
import sys
import types

import pytest

import fenwicks as fw

ROOT = pathlib.Path(__file__).parent.parent
LIST = ROOT / 'tests' / 'public_names.txt'
of_x86 = pytest.mark.skipif(
    platform.machine() not in ('x86_64', 'AMD64'), reason='sets a variable on x86 only'
)


def public_names(module: types.ModuleType) -> list[str]:
    """`__all__`, or else the constants, functions and classes that the module defines."""
    if hasattr(module, '__all__'):
        return sorted(module.__all__)
    defined = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined.update(target.id for target in targets if isinstance(target, ast.Name))
    return sorted(name for name in defined if not name.startswith('_'))


def all_public_names() -> list[str]:
    modules = [name for name in dir(fw) if not name.startswith('__')]
    lines = [f'fenwicks.{module}' for module in modules]
    for module in modules:
        loaded = importlib.import_module(f'fenwicks.{module}')
        lines += [f'fenwicks.{module}.{name}' for name in public_names(loaded)]
    return sorted(lines)


@pytest.mark.backend('tensorflow', 'jax')
def test_the_public_names_are_those_of_the_list():
    listed, found = set(LIST.read_text().split()), set(all_public_names())
    assert not found - listed, f'new: {sorted(found - listed)}'
    assert not listed - found, f'gone: {sorted(listed - found)}'


def test_every_public_name_is_there():
    for line in LIST.read_text().split():
        owner, name = line.rsplit('.', 1)
        if owner != 'fenwicks.tpu':  # which wants JAX
            assert hasattr(importlib.import_module(owner), name), line


def test_dir_shows_the_walk_and_hides_the_helpers():
    shown = dir(fw)
    assert set(fw.__all__) <= set(shown)
    for helper in ('os', 'importlib', 'types', 'kernels', '_backend', '_checks', '_files'):
        assert helper not in shown
    with pytest.raises(AttributeError, match="'fenwicks' has no attribute 'nothing'"):
        _ = fw.nothing


def run(code: str, **environment: str) -> str:
    """What a fresh Python prints; variables given as '' are unset."""
    variables = {**os.environ, **environment}
    variables = {name: value for name, value in variables.items() if value}
    ended = subprocess.run(
        [sys.executable, '-c', code],
        env=variables,
        cwd=ROOT,  # so that `python -c` imports this clone
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.thorough
def test_heavy_modules_are_loaded_on_first_use():
    code = """
import sys
import fenwicks as fw
late = ['ablation', 'assemble', 'hardware', 'recipes', 'runlog', 'tpu']
assert not [name for name in late if f'fenwicks.{name}' in sys.modules]
assert fw.recipes.get('speed94').epochs == 8.875
assert 'fenwicks.recipes' in sys.modules
assert 'fenwicks.assemble' not in sys.modules
"""
    run(code)


SHOW = """
import os, fenwicks
print(os.environ.get("TF_CPU_ALLOCATOR_USE_BFC"), os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
"""


@pytest.mark.thorough
@of_x86
@pytest.mark.parametrize(
    ('keep', 'allocator', 'onednn', 'after'),
    [
        ('', '', '', 'true 1'),
        ('0', '', '', 'true 1'),
        ('1', '', '', 'None None'),
        ('', 'false', '0', 'false 0'),
    ],
)
def test_what_importing_sets_can_be_declined(keep, allocator, onednn, after):
    variables = {'TF_CPU_ALLOCATOR_USE_BFC': allocator, 'TF_ENABLE_ONEDNN_OPTS': onednn}
    assert run(SHOW, FENWICKS_KEEP_ENVIRONMENT=keep, **variables) == after


@pytest.mark.thorough
@of_x86
def test_a_tensorflow_that_is_imported_already_is_not_said_to_use_onednn():
    pytest.importorskip('tensorflow')
    printed = run(
        'import tensorflow' + SHOW, FENWICKS_KEEP_ENVIRONMENT='', TF_ENABLE_ONEDNN_OPTS=''
    )
    assert printed == 'true None'


# `_backend.py` imports nothing of the library, so it runs here by itself; JAX alone is installed.
CHOOSE = """
import importlib.util, os, pathlib

importlib.util.find_spec = lambda name: object() if name == 'jax' else None
exec(compile(pathlib.Path({source!r}).read_text(), 'backend', 'exec'))
prepare()
print(os.environ.get('KERAS_BACKEND'))
"""


@pytest.mark.parametrize(
    ('keep', 'before', 'after'),
    [('', '', 'jax'), ('1', '', 'None'), ('', 'torch', 'torch'), ('', 'tensorflow', 'tensorflow')],
)
def test_where_tensorflow_is_missing_the_backend_is_jax(keep, before, after, tmp_path):
    source = pathlib.Path(fw.__file__).parent / '_backend.py'
    variables = {'KERAS_BACKEND': before, 'KERAS_HOME': str(tmp_path)}
    printed = run(CHOOSE.format(source=str(source)), FENWICKS_KEEP_ENVIRONMENT=keep, **variables)
    assert printed == after


# What is written as C++ writes it, past Python's own `sys.stderr`.
START = """
import os, pathlib, sys

exec(compile(pathlib.Path({source!r}).read_text(), 'backend', 'exec'))
with quiet_start():
    os.write(2, b'a note')
    if {fails}:
        raise ImportError('no TensorFlow')
"""


@pytest.mark.parametrize(
    ('wanted', 'fails', 'shown'),
    [
        ('', False, ['a note']),
        ('0', False, ['a note']),
        ('1', False, []),
        ('1', True, ['a note', 'ImportError']),  # an error is shown with all that came before it
    ],
)
def test_what_tensorflow_prints_on_its_start_can_be_held_back(wanted, fails, shown):
    source = pathlib.Path(fw.__file__).parent / '_backend.py'
    process = subprocess.run(
        [sys.executable, '-c', START.format(source=str(source), fails=fails)],
        env={**os.environ, 'FENWICKS_QUIET': wanted},
        capture_output=True,
        text=True,
        check=False,
    )
    assert bool(process.returncode) == fails
    assert [word for word in ('a note', 'ImportError') if word in process.stderr] == shown


@pytest.mark.parametrize('backend', ['nonsense', 'openvino'])
@pytest.mark.parametrize('name', ['fenwicks.report', 'fenwicks.export', 'examples/cifar10.py'])
def test_a_backend_that_is_not_installed_is_one_line(name, backend, tmp_path):
    if importlib.util.find_spec(backend) is not None:
        pytest.skip(f'{backend} is installed')
    file = tmp_path / 'keras.json'
    file.write_text(json.dumps({'backend': backend}))
    root = pathlib.Path(fw.__file__).parents[1]
    started = [str(root / name)] if name.endswith('.py') else ['-m', name, 'run']
    unset = {key: value for key, value in os.environ.items() if key != 'KERAS_BACKEND'}
    for chosen, received in (
        ({'KERAS_BACKEND': backend}, f'KERAS_BACKEND={backend}'),
        ({'KERAS_HOME': str(tmp_path)}, f'{backend}, as {file} has it'),
    ):
        process = subprocess.run(
            [sys.executable, *started],
            env={**unset, 'PYTHONPATH': str(root), **chosen},
            capture_output=True,
            text=True,
            check=False,
        )
        said = process.stderr.splitlines()
        assert (process.returncode, len(said)) == (1, 1), process.stderr
        assert said[0].startswith(f'{pathlib.Path(name).name}: `KERAS_BACKEND` must name a ')
        assert said[0].endswith(f'Received: {received}')


if __name__ == '__main__':
    print('\n'.join(all_public_names()))
