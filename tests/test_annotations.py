"""Every public function, constructor and method says the types of what it takes and returns.

`py.typed` promises that to type checkers; mypy, in `.ci/run`, holds the code to what they say.
"""

import importlib
import inspect
import pathlib

import pytest

HERE = pathlib.Path(__file__).parent


def missing(function, name: str) -> list[str]:
    """The parameters of a function without annotation, and `return`."""
    signature = inspect.signature(function)
    parameters = [
        parameter.name
        for place, parameter in enumerate(signature.parameters.values())
        if parameter.annotation is parameter.empty
        and not (place == 0 and parameter.name in ('self', 'cls'))
    ]
    returns = signature.return_annotation is signature.empty and not name.endswith('__init__')
    return parameters + ['return'] * returns


def functions_of(name: str, value):
    """A public function itself; of a class what it defines itself, its constructor included."""
    if inspect.isclass(value):
        for attribute, member in vars(value).items():
            if attribute.startswith('_') and attribute not in ('__init__', '__call__'):
                continue
            function = getattr(member, '__func__', getattr(member, 'fget', member))
            # A dataclass writes its own `__init__`, from annotated fields.
            if inspect.isfunction(function) and function.__code__.co_filename != '<string>':
                yield f'{name}.{attribute}', function
    elif inspect.isfunction(value):
        yield name, value


def unannotated():
    for line in (HERE / 'public_names.txt').read_text().split():
        owner, name = line.rsplit('.', 1)
        if owner == 'fenwicks':
            continue
        value = getattr(importlib.import_module(owner), name)
        for path, function in functions_of(line, value):
            if missing(function, path):
                yield path


@pytest.mark.backend('tensorflow', 'jax')
def test_the_public_functions_are_annotated():
    assert not list(unannotated())
