"""Trains an image classifier on CIFAR-10, fast.

    python examples/cifar10.py                              # the recipe `speed94`, 9 epochs
    python examples/cifar10.py --epochs=2                   # its schedule squeezed into two of them
    python examples/cifar10.py --recipe=page10 --without=whitening
    python examples/cifar10.py --list_recipes
    python examples/cifar10.py --set momentum=0.8 --set activation=relu
    python examples/cifar10.py --recipe_file=my_recipe.py   # a file that defines `recipe`

README.md ("Results") says what the recipes reach, how long they take, on what hardware and in how
many runs; --list_recipes says it in short. All of it comes from the runs logged under
examples/results/.
"""

from __future__ import annotations

import time

_STARTED = time.perf_counter()  # before the framework is imported, which the user waits for

import contextlib  # noqa: E402
import dataclasses  # noqa: E402
import datetime  # noqa: E402
import itertools  # noqa: E402
import pathlib  # noqa: E402
import re  # noqa: E402
import statistics  # noqa: E402

import quiet  # noqa: E402, F401

import logged  # noqa: E402
import pages  # noqa: E402
from absl import flags  # noqa: E402

from fenwicks import (  # noqa: E402
    assemble,
    command,
    data,
    devices,
    evaluate,
    hardware,
    precision,
    recipes,
    runlog,
    training,
)
from fenwicks.recipes import flags as recipe_flags  # noqa: E402

FLAGS = flags.FLAGS
try:
    REACHED = logged.reached()
except (
    OSError,
    ValueError,
    KeyError,
    TypeError,
):  # a damaged log mustn't keep anybody from training
    REACHED = {}
recipe_flags.define(
    'speed94', f'Reached here: {"; ".join(f"{name} {what}" for name, what in REACHED.items())}.'
)
flags.adopt_module_key_flags(recipe_flags)
flags.adopt_module_key_flags(pages)
flags.DEFINE_bool('list_recipes', False, 'Print the recipes and the tricks, and stop.')
flags.DEFINE_string(
    'dataset', 'auto', f'One of {", ".join(data.DATASETS)}; auto: cifar10, else the sample.'
)
flags.DEFINE_string('data_dir', None, 'Folder that holds the data set, in any published form.')
flags.DEFINE_integer('limit', None, 'Train on the first N images only.')
flags.DEFINE_string('precision', 'auto', f'One of {", ".join(precision.PRECISIONS)}.')
flags.DEFINE_enum(
    'model_precision',
    'float32',
    ['float32', 'trained'],
    'Precision in which the saved model computes: float32 can be exported to every format.',
)
flags.DEFINE_string('device', 'auto', f'One of {", ".join(devices.DEVICES)}.')
flags.DEFINE_bool('tpu', False, 'Short for --device=tpu.')
flags.DEFINE_integer(
    'replicas', None, 'Devices that share each batch; default: all accelerators, or one processor.'
)
flags.DEFINE_string(
    'batch_norm', 'per_replica', f'Of several replicas: {" or ".join(training.BATCH_NORMS)}.'
)
flags.DEFINE_integer('seed', 0, 'Of initial weights, shuffle and augmentation.')
flags.DEFINE_integer(
    'runs', 1, 'Train this many times, with seeds seed, seed + 1, ...', lower_bound=1
)
flags.DEFINE_string('out', None, 'Folder for the results; default: a new one below out/.')
flags.DEFINE_bool('resume', False, 'Go on with the interrupted training in --out.')
pages.define_flags()


def main():
    """Checks the flags, finds device and data, and trains `--runs` times."""
    if FLAGS.list_recipes:
        print(recipes.listing(REACHED))
        return
    code = hardware.provenance()
    recipe = recipe_flags.chosen(FLAGS)
    assemble.augmentations(recipe)  # raises where it names a transform that there isn't
    pages.check_flags()
    if FLAGS.seed < 0 or FLAGS.seed + FLAGS.runs > 2**31:
        raise ValueError(f'`seed` must be in [0, 2**31). Received: seed={FLAGS.seed}')
    if FLAGS.resume and FLAGS.out is None:
        raise ValueError('`resume` needs the folder of the interrupted training: pass --out=...')
    if FLAGS.tpu and FLAGS.device not in ('auto', 'tpu'):
        raise ValueError(f'`tpu` must not contradict `device`. Received: device={FLAGS.device}')
    out = None if FLAGS.out is None else pathlib.Path(FLAGS.out).expanduser()
    if out is not None:
        check_out(out)
    devices.connect()
    devices.remember_programs()
    device = devices.select_device('tpu' if FLAGS.tpu else FLAGS.device)
    replicas = training.replicate(FLAGS.replicas, FLAGS.batch_norm, device)
    chosen_precision = precision.set_precision(FLAGS.precision, device)
    dataset = data.load(FLAGS.dataset, FLAGS.data_dir)
    if FLAGS.limit is not None:
        # The sample that stands in for CIFAR-10 has fewer images than one may ask of that.
        stands_in = FLAGS.dataset == 'auto' and dataset.name == 'digits'
        at_hand = len(dataset.train_images)
        dataset = dataset.limit(min(FLAGS.limit, at_hand) if stands_in else FLAGS.limit)
    recipe = recipe_flags.for_dataset(recipe, dataset.name, FLAGS)
    recipe.steps_per_epoch(len(dataset.train_images))  # raises where a batch is too large
    assemble.check_shares(recipe, replicas)
    with contextlib.ExitStack() as locks:
        # The last check, so that an error leaves no empty folder behind.
        out = claim(out, recipe, locks) if replicas.chief else out or default_out(recipe)
        train_all(recipe, dataset, device, replicas, chosen_precision, code, out)


def train_all(recipe, dataset, device, replicas, chosen_precision, code, out):
    """Trains `--runs` times and prints what was reached."""
    several = f' ({replicas.count} replicas)' if replicas.count > 1 else ''
    say(
        replicas,
        f'{recipe.name} on {dataset.name} ({dataset.source}): {len(dataset.train_images)} training '
        f'and {len(dataset.test_images)} test images, {recipe.epochs} '
        f'epoch{"" if recipe.epochs == 1 else "s"} of batch '
        f'{recipe.batch_size}, {devices.check_backend()} on {device}{several}, {chosen_precision}',
    )

    command.say_how_to_go_on(f'the same flags with --resume --out={out} go on')
    about = {'device': device, 'hardware': hardware.describe(device), **code}
    results = [
        train(recipe, dataset, about, replicas, chosen_precision, FLAGS.seed + run, folder)
        for run, folder in enumerate(run_folders(out))
    ]
    if FLAGS.report and replicas.chief:
        pages.write(run_folders(out), out)
    accuracies = [100 * result['test_accuracy'] for result in results]
    spread = f' (s.d. {statistics.stdev(accuracies):.2f})' if len(accuracies) > 1 else ''
    say(
        replicas,
        f'test accuracy {statistics.mean(accuracies):.2f} %{spread} over {len(accuracies)} '
        f'run{"s" if len(accuracies) > 1 else ""} on {dataset.name}; results in {out}',
    )


def default_out(recipe):
    """A folder named after the time and the recipe."""
    name = re.sub(r'[^-+=.,\w]', '_', recipe.name)  # a file's recipe may be called anything
    return pathlib.Path('out') / f'{datetime.datetime.now():%Y%m%d-%H%M%S}-{name}'


def run_folders(out):
    """The folder of each run."""
    return [out] if FLAGS.runs == 1 else [out / str(run) for run in range(FLAGS.runs)]


def claim(out, recipe, locks):
    """Creates the folders and locks them for this process; returns the one that holds all.

    Args:
        out: that folder; None for a new one.
        recipe: for its name.
        locks: an `ExitStack` that holds the locks.
    """
    with command.renamed({'folder': 'out', 'path': 'out'}):
        if out is None:
            out = new_folder(default_out(recipe))
        for folder in dict.fromkeys([out, *run_folders(out)]):
            runlog.check_writable(folder)
            locks.enter_context(runlog.locked(folder))
    check_out(out)  # again, since another process may have trained there meanwhile
    return out


def new_folder(path):
    """Creates a folder that nobody else has, under this name or with a number after it."""
    runlog.check_writable(path.parent)
    for number in itertools.count(1):
        folder = path if number == 1 else path.with_name(f'{path.name}-{number}')
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder


def check_out(out):
    """Raises if the runs in `out` and --resume don't go together."""
    if FLAGS.resume:
        if not out.is_dir():
            raise ValueError(
                f'`resume` needs the folder of the interrupted training. Received: out={out}'
            )
        check_same_runs(out)
        return
    for folder in {out, out / '0', *run_folders(out)}:
        if holds_run(folder):
            raise ValueError(
                f'`out` must not hold a run already: pass --resume to go on with it, or another '
                f'folder. Received: out={folder}'
            )


def holds_run(folder):
    return any((folder / name).exists() for name in ('result.json', 'checkpoint.npz'))


def check_same_runs(out):
    """Raises if `out` holds one run where several are to go on, or the other way round."""
    other = out / '0' if FLAGS.runs == 1 else out
    if holds_run(out) if FLAGS.runs > 1 else other.is_dir():
        raise ValueError(
            '`runs` must be 1 to resume a run that lies in `out` itself, and more for runs in '
            f'folders of their own. Received: runs={FLAGS.runs}, while one lies in {other}'
        )


def train(recipe, dataset, about, replicas, chosen_precision, seed, folder):
    """Trains once; returns what it writes to `folder`/result.json."""
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
        if not isinstance(finished.get('test_accuracy'), float):
            raise ValueError(
                f'{result_path} must be the result of a run: remove it to train again. '
                f'Received: test_accuracy={finished.get("test_accuracy")!r}'
            )
        now = {'backend': devices.check_backend(), 'seed': seed, 'settings': settings}
        training.checkpoint.check_settings(f'the finished run in {folder}', finished, now)
        say(replicas, f'{folder} holds a finished run')
        return finished

    began = time.perf_counter()
    trainer = assemble.build_trainer(
        recipe, dataset, precision=chosen_precision, seed=seed, replicas=replicas
    )
    build_seconds = time.perf_counter() - began
    trainer.fit(
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
    logits = tta.combine(views)
    score = evaluate.metrics(logits, dataset.test_labels)
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
        **about,
        'class_names': list(dataset.class_names),
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
        'images_per_second': statistics.median(
            epoch['images_per_second'] for epoch in trainer.records
        ),
        'peak_memory_mb': hardware.peak_memory_mb(),
        'command': pages.command_line(
            __file__, seed, dataset=dataset.name, precision=chosen_precision, device=about['device']
        ),
        'settings': settings,
        'history': trainer.records,
    }
    if replicas.chief:
        with trainer.averaged(), runlog.written_whole(folder / 'model.keras') as part:
            model = assemble.with_normalization(
                trainer.model,
                *data.mean_std(dataset.train_images),
                input_shape=dataset.image_shape,
                precision=None if FLAGS.model_precision == 'trained' else 'float32',
                class_names=dataset.class_names,
            )
            model.save(part)
        pages.keep(folder, recipe, dataset, logits, seed)
        pages.publish(model, result, folder)
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
    command.run(main, 'cifar10.py')
