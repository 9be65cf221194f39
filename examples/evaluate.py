"""Says how good a trained model is on pictures whose classes are known.

    python examples/evaluate.py out/my_run photos/test
    python examples/evaluate.py out/my_run photos/test --tta=flip --json

MODEL is a file that Keras saved, or the folder of a run, which holds `model.keras`. DIR holds a
folder of pictures for each class, by the names that the classes had in the training; not every
class needs to be there. Prints accuracy and loss over all pictures, the accuracy of each class, and
what was taken for what most often.

Take pictures that the model was not trained on: `python examples/folder.py photos` trains on four
fifths of them, and the accuracy on `photos` is then higher than on new pictures. A warning says so
where pictures lie in the folders that the run trained on, which its result.json has.
"""

from __future__ import annotations

import startup  # noqa: F401

import argparse
import contextlib
import json
import logging
import os
import tempfile

import numpy as np
import predict

from fenwicks import command, data, evaluate, runlog
from fenwicks.data.class_names import places
from fenwicks.data.decoded import cache_folder
from fenwicks.data.folders import folders_of

NAME = 'evaluate.py'
BATCH = 100  # pictures that are in memory at a time
MISTAKES = 5  # pairs of classes that are named
_log = logging.getLogger('fenwicks')


def main(argv=None):
    arguments = parse_arguments(argv)
    command.call(lambda: report(arguments), NAME)


def parse_arguments(argv):
    parser = command.ArgumentParser(
        NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    predict.add_arguments(parser)
    parser.add_argument('folder', metavar='DIR', help='a folder for each class')
    parser.add_argument(
        '--skip_damaged', action='store_true', help='leave out damaged pictures, and say how many'
    )
    parser.add_argument('--json', action='store_true', help='print a JSON object instead of text')
    return parser.parse_args(argv)


def report(arguments):
    """Reads the model and the pictures, and evaluates."""
    with command.renamed({'root': 'DIR'}):
        images = data.ImageList.from_folders(arguments.folder, min_classes=1)
    model, class_names = predict.load(arguments.model)
    found = zip(images.class_names, places(images.class_names, class_names), strict=True)
    if unknown := [name for name, place in found if place is None]:
        raise ValueError(
            f'DIR must hold folders of the classes that the model knows '
            f'({", ".join(class_names)}). Received: {", ".join(unknown[:3])}'
        )
    if trained := trained_on(arguments.model, images.files):
        _log.warning(
            'training images of the run, in %s, are among these: the accuracy on new pictures is '
            'lower',
            trained,
        )
    fit = arguments.fit or predict.fit_of_training(arguments.model)
    with folder_for_pixels() as cache:
        arrays = decoded(images, model, fit, arguments.skip_damaged, cache)
        print_scores(arrays, model, class_names, arguments)


def trained_on(model_path, files):
    """The folder in which images that a model was trained on lie beside some of these, or None."""
    trained = {*map(str, predict.result_of_training(model_path).get('train_folders', ()))}
    shared = [folder for folder in folders_of(files) if folder in trained]
    return os.path.commonpath(shared) if shared else None


def folder_for_pixels():
    """A context with the folder to decode to: a temporary one, or None for the usual one."""
    try:
        runlog.check_writable(cache_folder())
    except OSError as error:
        reason = str(error).partition('Received: ')[2]
        _log.warning('the decoded pictures are not kept (set FENWICKS_DATA): %s', reason)
        return tempfile.TemporaryDirectory()
    return contextlib.nullcontext()


def decoded(images, model, fit, skip_damaged, cache):
    """The pixels, at the size that the model takes."""
    _, height, width, channels = model.input_shape
    with command.renamed({'skip_damaged': '--skip_damaged'}):
        return data.decode_images(
            images,
            (height, width),
            fit,
            channels=channels,
            skip_damaged=skip_damaged,
            cache_dir=cache,
        )


def print_scores(arrays, model, class_names, arguments):
    """Evaluates the model, and prints what came out."""
    labels = np.array(places(arrays.class_names, class_names))[arrays.labels]
    answer = evaluate.tta_model(model, evaluate.TTAS[arguments.tta])
    logits = evaluate.predict_logits(
        lambda batch: answer.predict(batch.astype('float32'), verbose=0), arrays.images, BATCH
    )
    result = {'images': len(labels), 'skipped': len(arrays.skipped)}
    result |= scores(logits, labels, class_names)
    if not np.isfinite(result['loss']):
        _log.warning('MODEL must return numbers: those for some pictures are infinite or NaN')
    printed = {key: finite_or_none(value) for key, value in result.items()}
    print(json.dumps(printed) if arguments.json else described(result))


def finite_or_none(value):
    """A value that JSON has: it knows neither infinity nor NaN."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def scores(logits, labels, class_names):
    """Accuracy and loss, of each class, and the commonest mistakes."""
    score = evaluate.metrics(logits, labels)
    is_number = ~np.isnan(logits).any(axis=1)
    answers = np.where(is_number, logits.argmax(axis=1), -1)  # NaN is no answer
    wrong = is_number & (answers != labels)
    pairs, counts = np.unique(np.stack([labels[wrong], answers[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind='stable')[:MISTAKES]
    return {
        'accuracy': score.accuracy,
        'loss': score.loss,
        'classes': {
            class_names[label]: float((answers[labels == label] == label).mean())
            for label in np.unique(labels)
        },
        'mistakes': [
            [class_names[pairs[0, n]], class_names[pairs[1, n]], int(counts[n])] for n in order
        ],
    }


def described(result):
    """The result as text."""
    skipped = f', {result["skipped"]} damaged left out' if result['skipped'] else ''
    lines = [
        f'accuracy {100 * result["accuracy"]:.2f} %, loss {result["loss"]:.4f} on '
        f'{command.counted(result["images"], "image")}{skipped}',
        *(f'{100 * share:6.2f} % of {name}' for name, share in result['classes'].items()),
        *(f'{count} of {truth} taken for {answer}' for truth, answer, count in result['mistakes']),
    ]
    return '\n'.join(lines)


if __name__ == '__main__':
    main()
