"""Splits: disjoint, complete, stratified, by group, reproducible."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fenwicks import data


def assert_partition(pair, count):
    train, validation = pair
    assert sorted([*train, *validation]) == list(range(count))
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()
    assert len(train)
    assert len(validation)


def counts(labels, indices):
    return np.bincount(np.asarray(labels)[indices], minlength=max(labels) + 1)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=4, max_size=60),
    folds=st.integers(2, 4),
    seed=st.integers(0, 9),
)
def test_folds_are_disjoint_complete_and_balanced(labels, folds, seed):
    labels = labels + [label for label in set(labels) for _ in range(folds)]
    pairs = data.k_folds(len(labels), folds, seed, labels)
    assert len(pairs) == folds
    for pair in pairs:
        assert_partition(pair, len(labels))
    left_out = np.concatenate([validation for _, validation in pairs])
    assert sorted(left_out) == list(range(len(labels)))
    sizes = [len(validation) for _, validation in pairs]
    assert max(sizes) - min(sizes) <= 1
    table = np.array([counts(labels, validation) for _, validation in pairs])
    assert (np.ptp(table, axis=0) <= 1).all()


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.integers(0, 9), min_size=10, max_size=80),
    folds=st.integers(2, 3),
    seed=st.integers(0, 9),
    data_labels=st.data(),
)
def test_groups_stay_together(groups, folds, seed, data_labels):
    groups = [*groups, 10, 11, 12]
    labels = data_labels.draw(
        st.lists(st.integers(0, 2), min_size=len(groups), max_size=len(groups))
    )
    names = [f'patient {group}' for group in groups]
    pairs = data.k_folds(len(groups), folds, seed, labels, names)
    pairs.append(data.train_validation_split(len(groups), 0.3, seed, labels, names))
    for train, validation in pairs:
        assert_partition((train, validation), len(groups))
        assert not {names[i] for i in train} & {names[i] for i in validation}
    left_out = [set(validation) for _, validation in pairs[:folds]]
    assert not any(a & b for a, b in itertools.combinations(left_out, 2))


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=80),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_a_split_keeps_each_class_on_both_sides(labels, fraction, seed):
    labels = labels + sorted(set(labels)) * 2
    pair = data.train_validation_split(len(labels), fraction, seed, labels)
    assert_partition(pair, len(labels))
    total, validation = counts(labels, [*range(len(labels))]), counts(labels, pair[1])
    present = total > 0
    assert (validation[present] >= 1).all()
    assert (validation[present] < total[present]).all()
    assert (np.abs(validation - fraction * total)[present] <= 1).all()


def test_the_seed_decides():
    first = data.train_validation_split(100, 0.2, 3)
    again = data.train_validation_split(100, 0.2, 3)
    other = data.train_validation_split(100, 0.2, 4)
    assert first[1].tolist() == again[1].tolist() != other[1].tolist()
    folds = [[v.tolist() for _, v in data.k_folds(30, 3, seed)] for seed in (1, 1, 2)]
    assert folds[0] == folds[1] != folds[2]


def test_groups_are_balanced_where_they_can_be():
    groups = np.repeat(np.arange(60), 5)
    labels = np.repeat(np.arange(60) % 3, 5)
    for _, validation in data.k_folds(300, 5, 0, labels, groups):
        assert counts(labels, validation).tolist() == [20, 20, 20]
    _, validation = data.train_validation_split(300, 0.2, 0, labels, groups)
    assert counts(labels, validation).tolist() == [20, 20, 20]


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: data.k_folds(10, 1), '`folds` must be at least 2'),
        (lambda: data.k_folds(10, 2.0), '`folds` must be a positive integer'),
        (lambda: data.k_folds(0, 2), '`count` must be a positive integer'),
        (lambda: data.k_folds(3, 4), '`folds` must be at most 3, the number of images. .*folds=4'),
        (
            lambda: data.k_folds(6, 3, labels=[5, 5, 5, 5, 9, 9]),
            '`folds` must be at most 2, the number of images of class 9.*folds=3',
        ),
        (
            lambda: data.k_folds(4, 3, groups=['a', 'a', 'b', 'b']),
            '`folds` must be at most 2, the number of groups',
        ),
        (lambda: data.k_folds(4, 2, -1), '`seed` must be'),
        (lambda: data.k_folds(4, 2, labels=[0, 1]), '`labels` must have the same length'),
        (lambda: data.k_folds(4, 2, groups=[0, 1]), r'`groups` must have the shape \(4,\)'),
        (lambda: data.train_validation_split(4, 0.0), '`fraction` must be a number'),
        (lambda: data.train_validation_split(4, 1), '`fraction` must be a number'),
        (lambda: data.train_validation_split(4, True), '`fraction` must be a number'),
        (lambda: data.train_validation_split(4, float('nan')), '`fraction` must be a number'),
        (lambda: data.train_validation_split(1, 0.5), 'at least two images. Received: one'),
        (
            lambda: data.train_validation_split(3, 0.5, labels=[0, 0, 7]),
            'at least two images of class 7. Received: one',
        ),
        (
            lambda: data.k_folds(3, 2, labels=[0, 0, 1], class_names=('cat', 'owl')),
            "`folds` must be at most 1, the number of images of class 1 .'owl'.. Received: folds=2",
        ),
        (
            lambda: data.train_validation_split(3, labels=[0, 0, 1], class_names=('cat', 'owl')),
            "at least two images of class 1 .'owl'.. Received: one",
        ),
        (lambda: data.train_validation_split(3, 0.5, groups=[1, 1, 1]), 'Received: one'),
    ],
)
def test_splits_that_cannot_be(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert '\n' not in str(caught.value)
