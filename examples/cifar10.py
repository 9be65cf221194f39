"""Trains an image classifier on CIFAR-10, fast.

    python examples/cifar10.py                              # the recipe `speed94`, 9 epochs
    python examples/cifar10.py --epochs=2                   # its schedule squeezed into two of them
    python examples/cifar10.py --recipe=page10 --without=whitening
    python examples/cifar10.py --list_recipes

What it takes and reaches, with the hardware and the number of runs, is in README.md ("Results");
every line there comes from a run logged under examples/results/.
"""

from __future__ import annotations

import time

_STARTED = time.perf_counter()  # before the framework is imported: a user waits for that too

import dataclasses  # noqa: E402
import datetime  # noqa: E402
import pathlib  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402

import quiet  # noqa: E402, F401

from absl import app, flags, logging  # noqa: E402

from fenwicks import (  # noqa: E402
    _files,
    assemble,
    data,
    devices,
    evaluate,
    hardware,
    precision,
    recipes,
    runlog,
    training,
)

FLAGS = flags.FLAGS
flags.DEFINE_string('recipe', 'speed94', f'One of {", ".join(recipes.PRESETS)}.')
flags.DEFINE_list('with', [], 'Tricks to add to the recipe, by commas.', allow_overwrite=False)
flags.DEFINE_list(
    'without', [], 'Tricks to take from the recipe, by commas.', allow_overwrite=False
)
flags.DEFINE_float('width', None, 'Factor on the number of filters in each stage.')
flags.DEFINE_bool('list_recipes', False, 'Print the recipes and the tricks, and stop.')
flags.DEFINE_string(
    'dataset', 'auto', f'One of {", ".join(data.DATASETS)}; auto: cifar10, else the sample.'
)
flags.DEFINE_string('data_dir', None, 'Folder that holds the data set, in any published form.')
flags.DEFINE_integer('limit', None, 'Train on the first N images only.')
flags.DEFINE_integer('epochs', None, "Passes over the training images; default: the recipe's.")
flags.DEFINE_integer('batch_size', None, "Images in a step; default: the recipe's.")
flags.DEFINE_string('precision', 'auto', f'One of {", ".join(precision.PRECISIONS)}.')
flags.DEFINE_string('device', 'auto', f'One of {", ".join(devices.DEVICES)}.')
flags.DEFINE_bool('tpu', False, 'Short for --device=tpu.')
flags.DEFINE_integer(
    'replicas', None, 'Devices that share each batch; default: all accelerators, or one processor.'
)
flags.DEFINE_string(
    'batch_norm', 'per_replica', f'Of several replicas: {" or ".join(training.BATCH_NORMS)}.'
)
flags.DEFINE_integer('seed', 0, 'Of initial weights, shuffle and augmentation.')
flags.DEFINE_integer('runs', 1, 'Train this many times, with seeds seed, seed + 1, ...')
flags.DEFINE_string('out', None, 'Folder for the results; default: a new one below out/.')
flags.DEFINE_bool('resume', False, 'Go on with the interrupted training in --out.')


def main(argv):
    logging.set_verbosity(logging.WARNING)  # no notes of the framework's on its own start
    if len(argv) > 1:
        fail(f'there are no arguments besides flags. Received: {argv[1]}')
    if FLAGS.list_recipes:
        print(recipes.listing())
        return
    try:
        train_all()
    except (ValueError, OSError, training.DivergedError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail('interrupted')


def parse_flags(argv):
    """The arguments that are no flags; a flag that breaks its rule ends the script."""
    try:
        return FLAGS(argv)
    except flags.Error as error:
        fail(error)
    except SystemExit:  # of --help, which absl ends with 1
        sys.exit(0)


def fail(error):
    """Ends the script with one line on standard error."""
    sys.exit(f'cifar10.py: {" ".join(str(error).split())}')


def train_all():
    """Checks the flags, finds device and data, and trains `--runs` times."""
    recipe = recipes.get(FLAGS.recipe, FLAGS['with'].value, FLAGS.without)
    if FLAGS.width is not None:
        recipe = recipe.with_width(FLAGS.width)
    if FLAGS.epochs is not None:
        recipe = recipe.with_epochs(FLAGS.epochs)
    if FLAGS.batch_size is not None:
        recipe = recipe.with_batch_size(FLAGS.batch_size)
    if FLAGS.runs < 1:
        raise ValueError(f'`runs` must be positive. Received: runs={FLAGS.runs}')
    if FLAGS.seed < 0 or FLAGS.seed + FLAGS.runs > 2**31:
        raise ValueError(f'`seed` must be in [0, 2**31). Received: seed={FLAGS.seed}')
    if FLAGS.resume and FLAGS.out is None:
        raise ValueError('`resume` needs the folder of the interrupted training: pass --out=...')
    if FLAGS.tpu and FLAGS.device not in ('auto', 'tpu'):
        raise ValueError(f'`tpu` must not contradict `device`. Received: device={FLAGS.device}')
    out = pathlib.Path(FLAGS.out or f'out/{datetime.datetime.now():%Y%m%d-%H%M%S}-{recipe.name}')
    folders = [out] if FLAGS.runs == 1 else [out / str(run) for run in range(FLAGS.runs)]
    if FLAGS.resume and not out.is_dir():
        raise ValueError(
            f'`resume` needs the folder of the interrupted training. Received: out={out}'
        )
    if FLAGS.resume:
        check_same_runs(out)
    else:
        for folder in {out, out / '0', *folders}:
            check_unused(folder)
    devices.connect()
    devices.remember_programs()
    device = devices.select_device('tpu' if FLAGS.tpu else FLAGS.device)
    replicas = training.replicate(FLAGS.replicas, FLAGS.batch_norm, device)
    chosen_precision = precision.set_precision(FLAGS.precision, device)
    dataset = data.load(FLAGS.dataset, FLAGS.data_dir)
    if FLAGS.limit is not None:
        dataset = dataset.limit(FLAGS.limit)
    if dataset.name == 'digits' and FLAGS.batch_size is None:
        recipe = recipe.for_small_data()
    recipe.steps_per_epoch(len(dataset.train_images))  # raises where a batch is too large
    assemble.check_shares(recipe, replicas)
    # The last check, so that an error leaves no empty folder behind.
    if replicas.chief:  # of several processes one writes, and speaks
        for folder in folders:
            _files.check_writable(folder)
    several = f' ({replicas.count} replicas)' if replicas.count > 1 else ''
    say(
        replicas,
        f'{recipe.name} on {dataset.name} ({dataset.source}): {len(dataset.train_images)} training '
        f'and {len(dataset.test_images)} test images, {recipe.epochs} '
        f'epoch{"s" if recipe.epochs > 1 else ""} of batch '
        f'{recipe.batch_size}, {devices.check_backend()} on {device}{several}, {chosen_precision}',
    )

    try:
        results = [
            train(recipe, dataset, device, replicas, chosen_precision, FLAGS.seed + run, folder)
            for run, folder in enumerate(folders)
        ]
    except KeyboardInterrupt:
        raise InterruptedError(
            f'interrupted: the same flags with --resume --out={out} go on'
        ) from None
    accuracies = [100 * result['test_accuracy'] for result in results]
    spread = f' (s.d. {statistics.stdev(accuracies):.2f})' if len(accuracies) > 1 else ''
    say(
        replicas,
        f'test accuracy {statistics.mean(accuracies):.2f} %{spread} over {len(accuracies)} '
        f'run{"s" if len(accuracies) > 1 else ""} on {dataset.name}; results in {out}',
    )


def holds_run(folder):
    return any((folder / name).exists() for name in ('result.json', 'checkpoint.npz'))


def check_unused(folder):
    """Raises if `folder` holds a run."""
    if holds_run(folder):
        raise ValueError(
            f'`out` must not hold a run already: pass --resume to go on with it, or another '
            f'folder. Received: out={folder}'
        )


def check_same_runs(out):
    """Raises if `out` holds one run where several are to go on, or the other way round."""
    other = out / '0' if FLAGS.runs == 1 else out
    if holds_run(out) if FLAGS.runs > 1 else other.is_dir():
        raise ValueError(
            '`runs` must be 1 to resume a run that lies in `out` itself, and more for runs in '
            f'folders of their own. Received: runs={FLAGS.runs}, while one lies in {other}'
        )


def train(recipe, dataset, device, replicas, chosen_precision, seed, folder):
    """One training; returns what it writes to `folder`/result.json."""
    result_path, checkpoint = folder / 'result.json', folder / 'checkpoint.npz'
    shared = {
        'dataset': dataset.name,
        'train_images': len(dataset.train_images),
        'precision': chosen_precision,
        'replicas': replicas.count,
        'batch_norm': replicas.batch_norm,
    }
    settings = {'recipe': dataclasses.asdict(recipe), **shared}
    if result_path.exists():
        finished = runlog.read_json(result_path)
        now = {'backend': devices.check_backend(), 'seed': seed, 'settings': settings}
        training.checkpoint.check_settings(f'the finished run in {folder}', finished, now)
        say(replicas, f'{folder} holds a finished run')
        return finished

    began = time.perf_counter()
    trainer = assemble.build_trainer(
        recipe, dataset, precision=chosen_precision, seed=seed, replicas=replicas
    )
    build_seconds = time.perf_counter() - began
    history = trainer.fit(
        dataset.train_images,
        dataset.train_labels,
        recipe.epochs,
        checkpoint=checkpoint,
        resume=FLAGS.resume,
        fingerprint=settings,
    )

    say(replicas, 'evaluating on the test images')
    began = time.perf_counter()
    tta = assemble.views(recipe)
    views = trainer.predict_views(dataset.test_images, tta=tta)
    score = evaluate.metrics(tta.combine(views), dataset.test_labels)
    plain = evaluate.metrics(views[0], dataset.test_labels)
    eval_seconds = time.perf_counter() - began

    first_step_seconds = None  # from the command on: of the first run, where it took any step
    if seed == FLAGS.seed and trainer.first_step_at:
        first_step_seconds = trainer.first_step_at - _STARTED

    result = {
        'recipe': recipe.name,
        'widths': list(recipe.widths),
        'epochs': recipe.epochs,
        'batch_size': recipe.batch_size,
        'seed': seed,
        **shared,
        'backend': devices.check_backend(),
        'device': device,
        'hardware': hardware.describe(device),
        'test_images': len(dataset.test_images),
        'test_accuracy': score.accuracy,
        'test_accuracy_plain': plain.accuracy,
        'test_loss': score.loss,
        'test_loss_plain': plain.loss,
        'test_time_augmentation': tta.name,
        'train_seconds': trainer.train_seconds,
        'compile_seconds': trainer.compile_seconds,
        'preprocess_seconds': build_seconds + trainer.preprocess_seconds,
        'eval_seconds': eval_seconds,
        'first_step_seconds': first_step_seconds,
        'images_per_second': statistics.median(epoch['images_per_second'] for epoch in history),
        'peak_memory_mb': hardware.peak_memory_mb(),
        'versions': hardware.versions(),
        'settings': settings,
        'history': history,
    }
    if replicas.chief:
        model = assemble.with_normalization(trainer.model, *data.mean_std(dataset.train_images))
        with trainer.averaged(), _files.written_whole(folder / 'model.keras') as part:
            model.save(part)
        runlog.write_json(result_path, result)
        checkpoint.unlink(missing_ok=True)
    say(
        replicas,
        f'seed {seed}: test accuracy {100 * score.accuracy:.2f} %, test loss {score.loss:.4f}, '
        f'{trainer.train_seconds:.1f} s of training',
    )
    return result


def say(replicas, text):
    if replicas.chief:
        print(text, flush=True)


if __name__ == '__main__':
    app.run(main, flags_parser=parse_flags)
