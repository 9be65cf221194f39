"""Says what a trained model sees in pictures.

    python examples/predict.py out/my_run/model.keras cat.jpg holiday/*.png
    python examples/predict.py out/my_run cat.jpg --tta=flip --picture=sheet.png
    python examples/predict.py out/my_run *.jpg --json > predictions.jsonl

MODEL is a file that Keras saved, or the folder of a run, which holds `model.keras`. The pictures
may have any size and colours; they are cropped, or padded or stretched as in the run's training,
to the shape that the model wants. Files that are no pictures are named on standard error and left
out; the exit status is 1 then.
"""

from __future__ import annotations

import startup  # noqa: F401

import argparse
import json
import os
import pathlib
import sys
import zipfile

import keras
import numpy as np

from fenwicks import command, evaluate, runlog
from fenwicks.data.folders import printable
from fenwicks.data.images import FITS, decode_image
from fenwicks.export import formats
from fenwicks.training import checks

NAME = 'predict.py'
SAVED = ('.keras', '.h5', '.hdf5')  # what Keras loads
BATCH = 100  # pictures that are in memory at a time
THUMBNAIL = 96  # pixels of the longer side
LETTERS = 18  # of a line under a picture


def main(argv=None):
    arguments = parse_arguments(argv)
    command.call(lambda: classify(arguments), NAME)


def parse_arguments(argv):
    parser = command.ArgumentParser(
        NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument('images', metavar='IMAGE', nargs='+', help='files to classify')
    parser.add_argument('--top', type=int, default=3, help='classes to name; default: 3')
    parser.add_argument('--json', action='store_true', help='print a JSON object for each picture')
    parser.add_argument(
        '--picture', metavar='FILE', help='draw pictures and answers into this file'
    )
    return parser.parse_intermixed_args(argv)


def add_arguments(parser):
    """The arguments that all commands on a trained model take: MODEL and how it sees pictures."""
    parser.add_argument(
        'model', metavar='MODEL', type=pathlib.Path, help='a .keras file, or the folder of a run'
    )
    parser.add_argument(
        '--tta', choices=evaluate.TTAS, default='none', help='test-time augmentation; default: none'
    )
    parser.add_argument(
        '--fit',
        choices=FITS,
        help='how pictures become as wide and high as the model wants; default: as in the training',
    )


def classify(arguments):
    """Prints the likeliest classes of each picture; ends with status 1 where one was left out."""
    if arguments.top < 1:
        raise ValueError(f'`top` must be a positive integer. Received: top={arguments.top}')
    if arguments.picture:
        check_picture(arguments.picture, arguments.images)
    model, class_names = load(arguments.model)
    fit = arguments.fit or fit_of_training(arguments.model)
    answer = evaluate.tta_model(model, evaluate.TTAS[arguments.tta])
    drawn, failed = [], 0
    for start in range(0, len(arguments.images), BATCH):
        names, images = [], []
        for name in arguments.images[start : start + BATCH]:
            try:
                images.append(decode(name, model.input_shape, fit))
                names.append(name)
            except (ValueError, OSError) as error:
                failed += 1
                print(f'{NAME}: {printable(" ".join(str(error).split()))}', file=sys.stderr)
        if not images:
            continue
        logits = answer.predict(np.stack(images).astype('float32'), verbose=0)
        for name, row in zip(names, evaluate.probabilities(logits), strict=True):
            if not np.isfinite(row).all():
                failed += 1
                print(
                    f'{NAME}: MODEL must return numbers, not NaN, for {printable(name)}',
                    file=sys.stderr,
                )
                continue
            order = np.argsort(-row, kind='stable')[: arguments.top]
            best = [(class_names[place], float(row[place])) for place in order]
            print(line(name, best, arguments.json), flush=True)
            if arguments.picture:
                drawn.append((name, best[0]))
    if drawn:
        draw(drawn, arguments.picture, fit, model.input_shape[1:3])
    if failed:
        sys.exit(1)


def load(given):
    """A model, from a file or the folder of a run, and the names of its classes.

    Raises:
        ValueError: the file holds no model for images, or its class names don't fit.
    """
    folder = given.expanduser()
    path = folder / 'model.keras' if folder.is_dir() else folder
    if not path.is_file() and (folder / '0' / 'model.keras').is_file():
        raise ValueError(
            f'MODEL must be one of the runs in this folder, such as {folder / "0"}. '
            f'Received: {folder}'
        )
    if folder != path and not path.is_file():
        raise ValueError(
            'MODEL must be a file that Keras saved, or the folder of a finished run. '
            f'Received: {folder}, a folder without {path.name}'
        )
    if not path.is_file():
        raise ValueError(f'MODEL must be a file that Keras saved. Received: {path}, no such file')
    if path.suffix not in SAVED:
        raise ValueError(
            'MODEL must be a file that Keras saved (.keras), or the folder of a run. '
            f'Received: {path}'
        )
    if path.suffix == '.keras' and not zipfile.is_zipfile(path):
        raise ValueError(
            f'MODEL must be a whole file, as Keras saves it. Received: {path}, damaged or cut short'
        )
    try:
        model = keras.saving.load_model(path, compile=False)
        _, height, width, channels = model.input_shape
        _, classes = model.output_shape
        if not isinstance(classes, int):
            raise TypeError(f'its outputs are {model.output_shape}')
    except Exception as error:  # Keras raises many kinds
        raise ValueError(
            f'MODEL must be a file that Keras saved, of a model from images to logits. '
            f'Received: {path} ({error})'
        ) from error
    if None in (height, width) or channels not in (1, 3, 4):
        raise ValueError(
            'MODEL must take images of a fixed size, of 1, 3 or 4 channels. '
            f'Received: {path}, with images of {height} x {width} x {channels}'
        )
    if classes < 2:
        raise ValueError(
            'MODEL must return a logit for each of two or more classes. '
            f'Received: {path}, with {command.counted(classes, "output")}'
        )
    if checks.ends_in_probabilities(model):
        raise ValueError(
            'MODEL must return logits: leave out its last activation. '
            f'Received: {path}, which ends in a softmax or a sigmoid'
        )
    class_names = formats.class_names(model) or [f'class {n}' for n in range(classes)]
    if len(class_names) != classes:
        raise ValueError(
            f'MODEL must have a class name for each of its {classes} logits. '
            f'Received: {path}, with {len(class_names)}'
        )
    return model, class_names


def fit_of_training(path):
    """How the pictures of the run that made a model were brought to one size."""
    settings = result_of_training(path).get('settings')
    return settings.get('fit', 'crop') if isinstance(settings, dict) else 'crop'


def result_of_training(path):
    """What is in the result.json of the run that made a model; empty where there is none."""
    path = path.expanduser()
    result = (path if path.is_dir() else path.parent) / 'result.json'
    return runlog.read_json(result) if result.is_file() else {}


def decode(name, input_shape, fit):
    """The pixels of a file, in the shape that the model takes."""
    _, height, width, channels = input_shape
    if pathlib.Path(name).is_dir():
        inside = pathlib.Path(name) / '*'
        raise ValueError(
            f'IMAGE must be a file: name those in {inside}. Received: {name}, a folder'
        )
    try:
        return decode_image(name, (height, width), fit, channels=channels)
    except OSError as error:
        raise ValueError(
            f'IMAGE must be a file that can be read. Received: {name} ({error.strerror or error})'
        ) from error


def line(name, best, as_json):
    """What is printed of a picture."""
    name = printable(name)
    if as_json:
        found = [{'class': label, 'probability': share} for label, share in best]
        return json.dumps({'file': name, 'predictions': found})
    return f'{name}: ' + ', '.join(f'{label} {100 * share:.1f} %' for label, share in best)


def check_picture(path, images):
    """Raises, before the work, what would keep `draw` from drawing, or make it draw over an image.

    Args:
        path: of the sheet to be drawn.
        images: paths of the images to be classified.
    """
    from fenwicks import plots

    with command.renamed({'path': 'picture'}):
        plots.check_path(path)
        target = runlog.check_target(path, writable=True)
    for image in images:
        if target.exists() and os.path.exists(image) and target.samefile(image):
            raise ValueError(
                f'`picture` must not be one of the images to classify. Received: picture={path}'
            )


def draw(drawn, path, fit, size):
    """Draws a contact sheet: each picture, as the model has seen it but finer, and its class."""
    from fenwicks import plots
    from fenwicks.plots.canvas import shortened

    thumbnail = [max(1, THUMBNAIL * side // max(size)) for side in size]
    pictures = np.stack([decode_image(name, thumbnail, fit) for name, _ in drawn])
    captions = [
        f'{shortened(printable(pathlib.Path(name).name), LETTERS)}\n'
        f'{shortened(label, LETTERS)} {100 * share:.0f} %'
        for name, (label, share) in drawn
    ]
    plots.save(plots.images(pictures, captions), path)


if __name__ == '__main__':
    main()
