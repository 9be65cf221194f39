"""Splits into parts that share no image: k-fold and train/validation, stratified, by group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fenwicks._checks import finite_number, integer, positive_integer
from fenwicks.data.dataset import check_labels

Split = tuple[np.ndarray, np.ndarray]


def k_folds(
    count: int,
    folds: int = 5,
    seed: int = 0,
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    class_names: Sequence[str] = (),
) -> list[Split]:
    """Splits images into folds of nearly equal size; each fold is left out once.

    Every image is in exactly one fold. Fold sizes differ by at most one; with `labels`, so do a
    class's numbers in the folds. With `groups`, the images of a group are in one fold, and sizes
    and classes are balanced as far as the groups allow: the largest group is placed first, each
    where it leaves the folds most alike.

    Args:
        count: number of images.
        folds: number of folds, 2 to `count`.
        seed: of the shuffle, at least 0; the same seed gives the same folds.
        labels: integers `(count,)`, to stratify by.
        groups: `(count,)` strings or integers.
        class_names: the name of each class, for errors; may be empty.

    Returns:
        List of `(train, validation)`, each a sorted array of indices, one pair a fold.

    Raises:
        ValueError: an argument is invalid, or there are more folds than images, than images in a
            class, or than groups.

    >>> [validation.tolist() for _, validation in k_folds(4, 2, labels=[0, 0, 1, 1])]
    [[0, 2], [1, 3]]
    """
    if positive_integer('folds', folds) < 2:
        raise ValueError(f'`folds` must be at least 2. Received: folds={folds}')
    classes, group, draw = _checked(count, seed, labels, groups)
    if group is not None:
        if group.max() + 1 < folds:
            raise ValueError(
                f'`folds` must be at most {group.max() + 1}, the number of groups. '
                f'Received: folds={folds}'
            )
        fold = _by_group(classes, group, np.full(folds, 1 / folds), draw)
    else:
        fold = np.empty(len(classes), np.int64)
        start = 0  # the next class goes on at the fold where this one ends
        for number in range(classes.max() + 1):
            members = draw.permutation(np.flatnonzero(classes == number))
            if len(members) < folds:
                raise ValueError(
                    f'`folds` must be at most {len(members)}, the number of images'
                    f'{_of_class(labels, classes, number, class_names)}. Received: folds={folds}'
                )
            fold[members] = (start + np.arange(len(members))) % folds
            start += len(members)
    return [_sides(fold == number) for number in range(folds)]


def train_validation_split(
    count: int,
    fraction: float = 0.2,
    seed: int = 0,
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    class_names: Sequence[str] = (),
) -> Split:
    """Splits images into a training and a validation part.

    Args:
        count: number of images, at least 2.
        fraction: share of the validation part, in (0, 1). Its size is rounded, and at least one
            image is on either side; with `labels` this holds for each class.
        seed: of the shuffle, at least 0; the same seed gives the same split.
        labels: integers `(count,)`, to stratify by.
        groups: `(count,)` strings or integers; the images of a group stay on one side.
        class_names: the name of each class, for errors; may be empty.

    Returns:
        `(train, validation)`, each a sorted array of indices.

    Raises:
        ValueError: an argument is invalid, or a class has one image only, or there is one group
            only.

    >>> train, validation = train_validation_split(10, 0.3)
    >>> len(train), len(validation)
    (7, 3)
    """
    fraction = finite_number('fraction', fraction, above=0, below=1)
    classes, group, draw = _checked(count, seed, labels, groups)
    if group is not None:
        if not group.max():
            raise ValueError('`groups` must hold two different groups or more. Received: one')
        return _sides(_by_group(classes, group, np.array([1 - fraction, fraction]), draw) == 1)
    validation = np.zeros(len(classes), bool)
    for number in range(classes.max() + 1):
        members = draw.permutation(np.flatnonzero(classes == number))
        if len(members) < 2:
            which = _of_class(labels, classes, number, class_names)
            raise ValueError(f'a split needs at least two images{which}. Received: one')
        size = min(max(1, round(len(members) * fraction)), len(members) - 1)
        validation[members[:size]] = True
    return _sides(validation)


def _checked(count, seed, labels, groups):
    """Numbers of the classes and of the groups from 0, without gaps, and a generator."""
    count = positive_integer('count', count)
    seed = integer('seed', seed, low=0)
    labels = np.zeros(count, np.int64) if labels is None else np.asarray(labels)
    check_labels(labels, count)
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != (count,):
            raise ValueError(
                f'`groups` must have the shape ({count},). Received: shape={groups.shape}'
            )
        try:
            groups = np.unique(groups, return_inverse=True)[1]
        except TypeError:  # None among them, or texts beside numbers
            raise ValueError(
                '`groups` must be all strings or all integers. Received: several types'
            ) from None
    return np.unique(labels, return_inverse=True)[1], groups, np.random.default_rng(seed)


def _of_class(labels, classes, number, class_names):
    """For a message: of which class, if there are any."""
    if labels is None:
        return ''
    label = np.asarray(labels)[classes == number][0]
    return f' of class {label}' + (f' ({str(class_names[label])!r})' if len(class_names) else '')


def _sides(validation):
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def _by_group(classes, groups, shares, draw):
    """The part of each image: whole groups, the largest first, each where the classes fit best."""
    table = np.zeros((groups.max() + 1, classes.max() + 1))  # images of a group and class
    np.add.at(table, (groups, classes), 1)
    totals = table.sum(axis=0)
    wanted = shares[:, None] * totals  # images of each class in each part
    order = draw.permutation(len(table))
    order = order[np.argsort(-table[order].sum(axis=1), kind='stable')]
    have = np.zeros_like(wanted)
    part = np.empty(len(table), np.int64)
    for place, group in enumerate(order):
        empty = np.flatnonzero(have.sum(axis=1) == 0)
        # The last groups go to the parts that have none yet.
        choices = empty if len(empty) >= len(order) - place else np.arange(len(shares))
        # By how much more each part would miss what is wanted, relative to the class.
        before = ((have[choices] - wanted[choices]) / totals) ** 2
        after = ((have[choices] + table[group] - wanted[choices]) / totals) ** 2
        part[group] = choices[np.argmin((after - before).sum(axis=1))]
        have[part[group]] += table[group]
    return part[groups]
