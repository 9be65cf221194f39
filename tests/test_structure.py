"""The structure of the source: the order of imports, what is private, names, lengths of files.

All of it is read with `ast`; nothing is imported.
"""

import ast
import functools
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LONGEST = 350  # lines

# A module imports those of earlier entries and of its own entry, never those of later ones.
ORDER = (
    (
        '_backend',
        '_checks',
        '_errors',
        '_files',
        '_forward',
        '_keras',
        '_keras_optimizers',
        '_keras_saving',
        '_typing',
        'command',
    ),
    ('kernels.device',),
    ('augment',),
    ('data',),
    ('kernels',),
    ('layers',),
    ('models',),
    ('losses',),
    ('schedules',),
    ('optimizers',),
    ('precision',),
    ('devices',),
    ('evaluate',),
    ('training',),
    ('diagnostics',),
    ('recipes',),
    ('hardware',),
    ('runlog',),
    ('ablation',),
    ('assemble',),
    ('export',),
    ('plots',),
    ('report',),
    ('tpu',),
)

# Methods of the standard library that begin with an underscore and are public all the same.
PUBLIC_UNDERSCORED = {'_exit', '_replace', '_asdict', '_fields', '_make'}

# What a library's own documentation has one assign.
ASSIGNABLE = {'sys.stdout', 'torch.backends.cudnn.benchmark'}

# Modules that one framework alone uses import it once, at their top.
OF_ONE_FRAMEWORK = (
    'kernels/',
    'devices/jax.py',
    'devices/tensorflow.py',
    'training/engines/',
    'training/replicas/',
)


def sources(*folders: str) -> list[pathlib.Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob('*.py'))


def shown(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def parsed(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def module_name(path: pathlib.Path) -> str:
    """`fenwicks.layers.blocks` of `fenwicks/layers/blocks.py`, `fenwicks.layers` of its package."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_name(path): path for path in sources('fenwicks')}


def imports(path: pathlib.Path) -> Iterator[tuple[str, str | None, int]]:
    """`(module, name, line)` of each import of this library, lazy ones included.

    `from fenwicks.data import load` gives the module `fenwicks.data` and the name `load`;
    `from fenwicks.data import cifar`, where that is a module, `fenwicks.data.cifar` and `None`.
    """
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split('.')[0] == 'fenwicks':
                    yield alias.name, None, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{shown(path)}:{node.lineno} imports relatively'
            if node.module.split('.')[0] == 'fenwicks':
                for alias in node.names:
                    full = f'{node.module}.{alias.name}'
                    if full in MODULES:
                        yield full, None, node.lineno
                    else:
                        yield node.module, alias.name, node.lineno


def rank(module: str) -> int:
    """The place in `ORDER` of a module such as `fenwicks.layers.blocks`."""
    parts = module.split('.')[1:]
    for length in range(len(parts), 0, -1):
        for place, entry in enumerate(ORDER):
            if '.'.join(parts[:length]) in entry:
                return place
    raise AssertionError(f'{module} has no place in the order of imports: add it to ORDER')


def package(module: str) -> str:
    """`fenwicks.layers` of `fenwicks.layers.blocks`; a module of the top level is its own."""
    return '.'.join(module.split('.')[:2])


def order_of_imports() -> Iterator[str]:
    for module, path in MODULES.items():
        if module == 'fenwicks':
            continue
        for imported, name, _ in imports(path):
            if imported == 'fenwicks':
                yield f'{module} imports fenwicks itself ({name})'
            elif rank(imported) > rank(module):
                yield f'{module} imports {imported}'


def circles() -> Iterator[str]:
    """Each module of a circle of imports."""
    edges = {
        module: {imported for imported, _, _ in imports(path)} - {'fenwicks'}
        for module, path in MODULES.items()
    }

    @functools.cache
    def reached(module: str) -> frozenset[str]:
        found, waiting = set(), [module]
        while waiting:
            for following in edges[waiting.pop()] - found:
                found.add(following)
                waiting.append(following)
        return frozenset(found)

    for module in edges:
        if module in reached(module):
            yield module


def is_private(name: str) -> bool:
    return name.startswith('_') and not (name.startswith('__') and name.endswith('__'))


def private_imports() -> Iterator[str]:
    """Names with an underscore taken from another package, by import or as an attribute."""
    for path in sources('fenwicks', 'examples', '.ci', 'colab'):
        module = module_name(path) if path.is_relative_to(ROOT / 'fenwicks') else ''
        bound = {}  # local name -> module
        for imported, name, _ in imports(path):
            bound[imported.rsplit('.', 1)[-1]] = imported
            taken = imported.split('.')[1:] + ([name] if name else [])
            if not any(map(is_private, taken)) or package(imported) == package(module):
                continue
            top_level = module and is_private(taken[0]) and not any(map(is_private, taken[1:]))
            if not top_level:
                yield f'{shown(path)} imports {".".join(["fenwicks", *taken])}'
        for node in ast.walk(parsed(path)):
            if (
                isinstance(node, ast.Attribute)
                and is_private(node.attr)
                and isinstance(node.value, ast.Name)
                and package(bound.get(node.value.id, module)) != package(module)
            ):
                yield f'{shown(path)} takes {node.value.id}.{node.attr}'


def defined(path: pathlib.Path) -> Iterator[str]:
    """All names that a file defines or assigns, attributes and slots included."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def foreign_attributes() -> Iterator[str]:
    """Attributes with an underscore that no file of the package defines: Keras's, or another's.

    What is private in Keras stands in `fenwicks/_keras.py` and `fenwicks/_keras_*.py` alone.
    """
    own = {}
    for module, path in MODULES.items():
        own.setdefault(package(module), set()).update(defined(path))
    for path in sources('fenwicks', 'examples', '.ci', 'colab'):
        if path.stem.startswith('_keras'):
            continue
        inside = path.is_relative_to(ROOT / 'fenwicks')
        names = own[package(module_name(path))] if inside else set(defined(path))
        for node in ast.walk(parsed(path)):
            if (
                isinstance(node, ast.Attribute)
                and is_private(node.attr)
                and node.attr not in names | PUBLIC_UNDERSCORED
            ):
                yield f'{shown(path)} takes {ast.unparse(node)}'


def assignments_to_modules() -> Iterator[str]:
    """`module.name = ...`, `del module.name` or `setattr(module, ...)`, where it was imported."""
    for path in sources('fenwicks', 'examples', '.ci', 'colab'):
        imported = {
            (alias.asname or alias.name).split('.')[0]
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        for node in ast.walk(parsed(path)):
            target = None
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
                target = node.value if ast.unparse(node) not in ASSIGNABLE else None
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ('setattr', 'delattr')
            ):
                target = node.args[0]
            while isinstance(target, ast.Attribute):
                target = target.value
            if isinstance(target, ast.Name) and target.id in imported:
                yield f'{shown(path)} assigns to an attribute of {target.id}'


def names_of_their_module() -> Iterator[str]:
    """Functions named as their module, and exports that hide a module of the same package."""
    for path in sources('fenwicks', 'examples'):
        for node in parsed(path).body:
            if isinstance(node, ast.FunctionDef) and node.name == path.stem:
                yield f'{shown(path)} defines {node.name}'
    for module, path in MODULES.items():
        if path.name == '__init__.py':
            for _, name, _ in imports(path):
                if name and f'{module}.{name}' in MODULES:
                    yield f'{shown(path)} hides {module}.{name}'


def long_files() -> Iterator[str]:
    for path in sources('fenwicks', 'examples', '.ci'):
        lines = len(path.read_text().splitlines())
        if lines > LONGEST:
            yield shown(path)


def late_frameworks() -> Iterator[str]:
    """Imports of a framework within functions of the modules that one framework alone uses."""
    for path in sources('fenwicks'):
        place = str(path.relative_to(ROOT / 'fenwicks'))
        if not place.startswith(OF_ONE_FRAMEWORK):
            continue
        for function in ast.walk(parsed(path)):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) else []
                for name in names:
                    if name.split('.')[0] in ('tensorflow', 'jax'):
                        yield f'{shown(path)} imports {name.split(".")[0]} in {function.name}'


def early_frameworks() -> Iterator[str]:
    """Frameworks that `recipes`, `runlog` and `hardware` import when they are imported."""
    for module, path in MODULES.items():
        if package(module).rsplit('.', 1)[-1] not in ('recipes', 'runlog', 'hardware'):
            continue
        for node in parsed(path).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.split('.')[0] in ('tensorflow', 'jax', 'keras', 'torch'):
                    yield f'{module} imports {name}'


RULES = (
    order_of_imports,
    circles,
    private_imports,
    foreign_attributes,
    assignments_to_modules,
    names_of_their_module,
    long_files,
    late_frameworks,
    early_frameworks,
)


@pytest.mark.parametrize('rule', RULES, ids=lambda rule: rule.__name__)
def test_structure(rule):
    assert not list(rule())
