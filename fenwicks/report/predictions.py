"""The sections about images: samples, confusion matrix, mistakes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fenwicks import plots
from fenwicks.plots.canvas import new_axes
from fenwicks.report import elements, figures
from fenwicks.report.material import Material
from fenwicks.report.runs import Run


def samples(material: Material) -> Iterator[str]:
    """Training images and what the augmentation makes of them."""
    versions = len(material.augmented)
    if not len(material.samples) or not versions:
        return
    yield elements.paragraph(
        f'Some training images, and beside each what the augmentation made of it in {versions} '
        f'epoch{"" if versions == 1 else "s"}.'
    )
    yield elements.picture_rows([
        [
            figures.image(sample, f'Training image {row + 1} as it is'),
            *(
                figures.image(image, f'Training image {row + 1}, augmented, version {number + 1}')
                for number, image in enumerate(material.augmented[:, row])
            ),
        ]
        for row, sample in enumerate(material.samples)
    ])  # fmt: skip


def confusion(run: Run, material: Material) -> Iterator[str]:
    """The confusion matrix, and its classes as a table."""
    names, labels, predictions = run.class_names(), material.labels, material.predictions
    if not len(labels):
        return
    axes = new_axes((5.8, 5.8))
    figure = plots.confusion_matrix(labels, predictions, names, axes=axes)
    right = int((labels == predictions).sum())
    description = (
        f'Matrix of {len(names)} labels by {len(names)} predictions; {right:,} of '
        f'{len(labels):,} images lie on the diagonal. The table below has the numbers.'
    )
    drawing = elements.chart(figures.svg(figure, description, 'confusion'), '', 'matrix')
    yield elements.scrolling('Confusion matrix', drawing)
    rows = []
    for label, name in enumerate(names):
        guesses = predictions[labels == label]
        if not len(guesses):
            continue
        wrong = np.bincount(guesses[guesses != label], minlength=len(names))
        most = int(wrong.argmax())
        rows.append([
            name,
            f'{len(guesses):,}',
            f'{100 * (guesses == label).mean():.1f}',
            f'{names[most]} ({wrong[most]:,})' if wrong[most] else 'none',
        ])  # fmt: skip
    header = ['class', 'images', 'correct, %', 'most often taken for']
    yield elements.details('Every class in numbers', elements.table('Classes', header, rows))


def mistakes(run: Run, material: Material) -> Iterator[str]:
    """The misclassified images with the highest predicted probabilities."""
    if not len(material.labels):
        return
    if not len(material.mistakes):
        right = (material.labels == material.predictions).all()
        yield elements.paragraph(
            'There is none: every test image is classified correctly.'
            if right
            else 'There is none to show: no mistake has a probability that is a number.'
        )
        return
    yield elements.paragraph(
        'Misclassified test images, those with the highest predicted probability first.'
    )
    names, items = run.class_names(), []
    for position, confidence, pixels in zip(
        material.mistakes, material.confidences, material.mistake_images, strict=True
    ):
        guess = names[material.predictions[position]]
        label = names[material.labels[position]]
        alternative = f'Test image {position}: {label}, taken for {guess}'
        caption = f'{guess} {100 * confidence:.0f} %, not {label}'
        items.append((figures.image(pixels, alternative), caption))
    yield elements.pictures(items)
