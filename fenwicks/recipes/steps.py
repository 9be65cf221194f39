"""Random transforms as text: a call of a function of `fenwicks.augment`, with its settings."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NamedTuple


class Step(NamedTuple):
    """One random transform.

    Attributes:
        name: of a function of `fenwicks.augment` that takes images and a seed.
        settings: its other arguments, by name.
    """

    name: str
    settings: Mapping[str, Any]

    def check_settings(self, function: Callable, given: Container[str]) -> None:
        """Raises unless a function takes the settings, and needs no others.

        Args:
            function: the one of that name.
            given: names of the arguments that it gets from the training.

        Raises:
            ValueError: there is no such setting, or one is missing.
        """
        parameters = inspect.signature(function).parameters.items()
        takes = {key: each for key, each in parameters if key not in given}
        needs = [key for key, each in takes.items() if each.default is each.empty]
        if not set(needs) <= self.settings.keys() <= takes.keys():
            also = f', {" and ".join(needs)} at least' if needs else ''
            raise ValueError(
                f'`augmentations` must have settings that {self.name} takes '
                f'({", ".join(takes) or "none"}){also}. '
                f'Received: {", ".join(self.settings) or "none"}'
            )


def parse_steps(texts: Iterable[str]) -> list[Step]:
    """The steps that some texts name.

    Args:
        texts: such as `'random_crop(padding=2)'`: a name, and settings that are Python literals.

    Raises:
        ValueError: a text has another form, or two name one transform.

    Example:

    >>> parse_steps(['random_crop(padding=2)'])
    [Step(name='random_crop', settings={'padding': 2})]
    """
    steps: list[Step] = []
    for text in texts:
        step = _parse(text)
        if step.name in [each.name for each in steps]:
            raise ValueError(
                f'`augmentations` must name a transform once. Received: {step.name} twice'
            )
        steps.append(step)
    return steps


def _parse(text) -> Step:
    try:
        call = ast.parse(text, mode='eval').body
        if isinstance(call, ast.Name):
            return Step(call.id, {})
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError('no call')
        settings = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
        if any(each.arg is None for each in call.keywords):
            raise ValueError('settings without names')
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(
            '`augmentations` must be calls with named settings, as in random_crop(padding=2). '
            f'Received: {text!r}'
        ) from None
    return Step(call.func.id, settings)
