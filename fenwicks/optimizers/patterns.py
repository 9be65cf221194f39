"""Which variables a word or a regular expression means, found without backtracking.

A pattern may come with a model file, and Python's own matching takes exponential time on some,
`(a+)+b` for instance. Here the time is bounded by a polynomial of the lengths.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Sequence
from re import _compiler, _parser  # type: ignore[attr-defined]
from typing import Any

# Keras calls the bias of batch norm `beta` and its scale `gamma`.
WORDS = {
    'bias': r'(.*/)?(bias|beta)',
    'scale': r'(.*/)?gamma',
    'kernel': r'(.*/)?(\w+_)?kernel',
}
_LONGEST, _DEEPEST, _MOST_REPEATS = 2000, 50, 50
_MOST_STEPS = 200_000  # about 0.1 s; the words take some hundred

_REPEATS = {_parser.MAX_REPEAT, _parser.MIN_REPEAT}
_GROUPS = {_parser.SUBPATTERN, _parser.BRANCH, _parser.ASSERT, _parser.ASSERT_NOT, *_REPEATS}
_ONE_CHARACTER = {_parser.LITERAL, _parser.NOT_LITERAL, _parser.ANY, _parser.IN}
_SUPPORTED = {*_GROUPS, *_ONE_CHARACTER, _parser.AT, _parser.FAILURE}


@functools.lru_cache(maxsize=4096)
def matches(match: str, path: str) -> bool:
    """Whether the word or regular expression `match` means the variable with this path."""
    tree, flags = _parsed(WORDS.get(match, match))
    try:
        return bool(_Matcher(path).ends(tree, 1, flags) >> len(path) & 1)
    except TimeoutError:
        raise ValueError(
            'a pattern for variables must be simpler: matching takes too long. '
            f'Received: {match[:100]!r}, to be matched with {path[:100]!r}'
        ) from None


def check_match(name: str, match: Any) -> None:
    """Raises a ValueError unless `match` is a word or a regular expression that can be matched."""
    if not isinstance(match, str) or not match:
        raise ValueError(
            f'`{name}` must be a non-empty string: a word of '
            f'{sorted(WORDS)} or a regular expression. Received: {name}={match!r}'
        )
    shown = match if len(match) <= 100 else f'{match[:100]}...'
    if len(match) > _LONGEST:
        raise ValueError(
            f'`{name}` must be at most {_LONGEST} characters long. Received: {name}={shown!r}'
        )
    try:
        tree, _ = _parsed(match)
        parts = list(_parts(tree))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f'`{name}` must be a valid regular expression ({error}). Received: {name}={shown!r}'
        ) from None
    repeats = sum(operation in _REPEATS for operation, _ in parts)
    unsupported = sorted({str(operation) for operation, _ in parts if operation not in _SUPPORTED})
    deepest = max((depth for _, depth in parts), default=0)
    if unsupported or repeats > _MOST_REPEATS or deepest > _DEEPEST:
        raise ValueError(
            f'`{name}` must have no back-references, conditions or possessive parts, at most '
            f'{_MOST_REPEATS} repeats and {_DEEPEST} nested groups. Received: {name}={shown!r}'
        )


def nearest(match: str, paths: Sequence[str], count: int = 3) -> list[str]:
    """The paths most like a pattern that matches none of them, the nearest first."""
    literal = match if match in WORDS else re.sub(r'\\[a-zA-Z]|[^\w/]', '', match)
    likeness = {
        path: difflib.SequenceMatcher(None, literal[:200], path[:200]).ratio() for path in paths
    }
    return sorted(paths, key=lambda path: -likeness[path])[:count]


@functools.lru_cache(maxsize=256)
def _parsed(pattern: str) -> tuple[Any, int]:
    """Python's own parse of a regular expression, and its flags."""
    tree = _parser.parse(pattern)
    return tree, tree.state.flags


def _parts(tree: Any, depth: int = 0) -> Iterator[tuple[Any, int]]:
    """Each operation of a parse, with the number of groups around it."""
    for operation, value in tree:
        yield operation, depth
        for inner in _inner(operation, value):
            yield from _parts(inner, depth + 1)


def _inner(operation: Any, value: Any) -> list:
    """The parses within an operation."""
    if operation not in _GROUPS:
        return []
    return value[1] if operation == _parser.BRANCH else [value[-1]]


class _Matcher:
    """Matches parses on one text. A set of positions is an integer, bit `i` for position `i`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._steps = 0
        self._known: dict[tuple[int, int, int], int] = {}

    def ends(self, tree: Any, starts: int, flags: int) -> int:
        """Where matches of a sequence end that begin at one of `starts`."""
        for operation, value in tree:
            if not starts:
                return 0
            starts = self._step(operation, value, starts, flags, tree.state)
        return starts

    def _ends_from(self, tree: Any, start: int, flags: int) -> int:
        """`ends` of a single start, computed once."""
        key = id(tree), start, flags
        if key not in self._known:
            self._known[key] = self.ends(tree, 1 << start, flags)
        return self._known[key]

    def _step(self, operation: Any, value: Any, starts: int, flags: int, state: Any) -> int:
        self._count(starts)
        if operation in _ONE_CHARACTER or operation == _parser.AT:
            atom = _atom(operation, _frozen(value), flags, state)
            found = sum(1 << i for i in _bits(starts) if atom.match(self.text, i))
            return found if operation == _parser.AT else found << 1
        if operation == _parser.SUBPATTERN:
            _, added, removed, tree = value
            return self.ends(tree, starts, (flags | added) & ~removed)
        if operation == _parser.BRANCH:
            return functools.reduce(
                int.__or__, (self.ends(tree, starts, flags) for tree in value[1])
            )
        if operation in _REPEATS:
            low, high, tree = value
            return self._repeat(low, high, tree, starts, flags)
        if operation == _parser.FAILURE:
            return 0
        behind, tree = value
        wanted = operation == _parser.ASSERT
        return sum(
            1 << i for i in _bits(starts) if self._asserted(tree, i, behind, flags) == wanted
        )

    def _count(self, positions: int) -> None:
        self._steps += 1 + positions.bit_count()
        if self._steps > _MOST_STEPS:
            raise TimeoutError

    def _asserted(self, tree: Any, position: int, direction: int, flags: int) -> bool:
        if direction > 0:
            return bool(self._ends_from(tree, position, flags))
        start = position - tree.getwidth()[0]
        return start >= 0 and bool(self._ends_from(tree, start, flags) >> position & 1)

    def _repeat(self, low: int, high: int, tree: Any, starts: int, flags: int) -> int:
        def once(positions: int) -> int:
            self._count(positions)
            found = 0
            for position in _bits(positions):
                found |= self._ends_from(tree, position, flags)
            return found

        reached = starts
        for _ in range(low):
            following = once(reached)
            if following == reached:  # more of the same changes nothing: empty, or closed
                break
            reached = following
        new, count = reached, low
        while new and count < high:
            new = once(new) & ~reached
            reached, count = reached | new, count + 1
        return reached


def _bits(positions: int) -> Iterator[int]:
    while positions:
        lowest = positions & -positions
        yield lowest.bit_length() - 1
        positions ^= lowest


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@functools.lru_cache(maxsize=1024)
def _atom(operation: Any, value: Any, flags: int, state: Any) -> re.Pattern:
    """A single character, a set of them, or a place such as `^`, as a regular expression."""
    value = list(value) if operation == _parser.IN else value
    return _compiler.compile(_parser.SubPattern(state, [(operation, value)]), flags)
