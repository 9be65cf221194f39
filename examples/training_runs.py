"""What the training scripts share: flags, the machine, and a training with all that it writes."""

from __future__ import annotations

import startup

import contextlib
import dataclasses
import functools
import pathlib
import shlex
import statistics
import time
from collections.abc import Callable, Iterable

import pages
import watch
from absl import flags
from run_folders import RunFolders, default_out

from fenwicks import (
    assemble,
    command,
    data,
    devices,
    evaluate,
    hardware,
    precision,
    runlog,
    training,
)
from fenwicks.recipes import Recipe
from fenwicks.recipes import flags as recipe_flags

FLAGS = flags.FLAGS


def define_flags(recipe: str, more: str = '') -> None:
    """Defines the flags that all training scripts have.

    For `--help` to show them a script also calls `flags.adopt_module_key_flags` of this module.

    Args:
        recipe: the default of --recipe.
        more: what the help of --recipe says besides the names.
    """
    recipe_flags.define(recipe, more)
    flags.adopt_module_key_flags(recipe_flags)
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
        'replicas', None, 'Devices that share each batch; default: all accelerators, or one CPU.'
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
    flags.adopt_module_key_flags(pages)
    watch.define_flags()
    flags.adopt_module_key_flags(watch)


def checked_folders(name: str, count: int, of_each: str = 'runs') -> RunFolders:
    """The folders for `count` runs, by the flags.

    Raises:
        ValueError: a flag breaks a rule.
    """
    pages.check_flags()
    watch.check_flags()
    if FLAGS.seed < 0 or FLAGS.seed + FLAGS.runs > 2**31:
        raise ValueError(f'`seed` must be in [0, 2**31). Received: seed={FLAGS.seed}')
    if FLAGS.tpu and FLAGS.device not in ('auto', 'tpu'):
        raise ValueError(f'`tpu` must not contradict `device`. Received: device={FLAGS.device}')
    out = None if FLAGS.out is None else pathlib.Path(FLAGS.out).expanduser()
    folders = RunFolders(name, out, count, FLAGS.resume, of_each)
    folders.check()
    return folders


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a script trains on: the device, the replicas, the precision."""

    device: str
    replicas: training.Replicas
    precision: str

    @classmethod
    def by_flags(cls) -> Machine:
        """Finds the device and sets the precision that the flags ask for."""
        devices.connect()
        devices.remember_programs()
        device = devices.select_device('tpu' if FLAGS.tpu else FLAGS.device)
        replicas = training.replicate(FLAGS.replicas, FLAGS.batch_norm, device)
        return cls(device, replicas, precision.set_precision(FLAGS.precision, device))

    def say(self, text: str, also_quiet: bool = False) -> None:
        """Prints a line, in one of several processes; with --verbosity=-1 only if `also_quiet`."""
        if self.replicas.chief and (also_quiet or not watch.is_quiet()):
            print(text, flush=True)

    def __str__(self) -> str:
        several = f' ({self.replicas.count} replicas)' if self.replicas.count > 1 else ''
        return f'{devices.check_backend()} on {self.device}{several}, {self.precision}'


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained: a recipe on a data set.

    Args:
        recipe: the settings.
        dataset: the images.
        build: makes the trainer, with the arguments of `assemble.build_trainer`.
        with_pixels: makes the model to save, with the arguments of `assemble.with_normalization`.
        settings: JSON values in which the job differs from others of the same recipe.
        chosen: flags for the logged command that name the data, such as what `auto` stood for.
        arguments: positional arguments of the command.
        train_folders: those in which the training images lie, where they are files.
    """

    recipe: Recipe
    dataset: data.Dataset
    build: Callable[..., training.Trainer] = assemble.build_trainer
    with_pixels: Callable = assemble.with_normalization
    settings: dict = dataclasses.field(default_factory=dict)
    chosen: dict[str, str] = dataclasses.field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    train_folders: list[str] = dataclasses.field(default_factory=list)

    @functools.cached_property
    def data_digest(self) -> str:
        """That of the dataset, taken once for all runs of the job."""
        return self.dataset.digest()

    def check(self, machine: Machine) -> None:
        """Raises where the recipe doesn't fit the images or the devices."""
        self.recipe.steps_per_epoch(len(self.dataset.train_images))
        recipe_flags.check_image_sizes(self.recipe, *self.dataset.image_shape[:2])
        assemble.check_shares(self.recipe, machine.replicas)


def train_all(
    jobs: Iterable[tuple[Job, int]], machine: Machine, folders: RunFolders, script: str, code: dict
) -> tuple[list[dict], RunFolders]:
    """Trains each job in a folder of its own.

    Args:
        jobs: pairs of a job and its seed, which a generator may make when their turn comes.
        machine: what they train on.
        folders: the jobs' folders, from `checked_folders`.
        script: the script's `__file__`.
        code: commit and the like, from `hardware.provenance`.

    Returns:
        What each run wrote to its result.json, and the folders, which may be new ones.
    """
    jobs = iter(jobs)
    job, seed = next(jobs)
    job.check(machine)
    with contextlib.ExitStack() as locks:
        # After all other checks, so that an error leaves no empty folder behind.
        if machine.replicas.chief:
            folders = folders.claim(locks)
        elif folders.out is None:
            folders = dataclasses.replace(folders, out=default_out(folders.name))
        tests = len(job.dataset.test_images)
        machine.say(
            f'{job.recipe.name} on {job.dataset.name} ({job.dataset.source}): '
            f'{len(job.dataset.train_images)} training and {command.counted(tests, "test image")}, '
            f'{command.counted(job.recipe.epochs, "epoch")} of batch '
            f'{job.recipe.batch_size}, {machine}'
        )
        out = shlex.quote(str(folders.out))
        how = f'the same flags with --resume --out={out} go on'
        used = hardware.describe(machine.device, machine.replicas.count)
        about = {'device': machine.device, 'hardware': used, **code}
        results = []
        for folder in folders.of_runs():
            if results:
                job, seed = next(jobs)
                job.check(machine)
            command.say_how_to_go_on(how)
            results.append(train(job, machine, seed, folder, script, about, how, not results))
        command.say_how_to_go_on(how)
        if FLAGS.report and machine.replicas.chief:
            pages.write(folders.of_runs(), folders.out)
    return results, folders


def summary(results: list[dict], dataset: str, of_each: str = 'run') -> str:
    """What several runs reached, in a line."""
    accuracies = [100 * result['test_accuracy'] for result in results]
    spread = f' (s.d. {statistics.stdev(accuracies):.2f})' if len(accuracies) > 1 else ''
    return (
        f'test accuracy {statistics.mean(accuracies):.2f} %{spread} over '
        f'{command.counted(len(accuracies), of_each)} on {dataset}'
    )


def train(
    job: Job,
    machine: Machine,
    seed: int,
    folder: pathlib.Path,
    script: str,
    about: dict,
    how_to_go_on: str,
    first: bool,
) -> dict:
    """Trains once, the first time or again; returns what it writes to `folder`/result.json."""
    recipe, dataset, replicas = job.recipe, job.dataset, machine.replicas
    result_path, checkpoint = folder / 'result.json', folder / 'checkpoint.npz'
    shared = {
        'dataset': dataset.name,
        'train_images': len(dataset.train_images),
        'precision': machine.precision,
        'replicas': replicas.count,
        'batch_norm': replicas.batch_norm,
    }
    settings = {'recipe': dataclasses.asdict(recipe), **shared, **job.settings}
    # Not among the settings, which a checkpoint of an earlier version must equal.
    digest = job.data_digest
    if result_path.exists():
        finished = runlog.read_json(result_path)
        if not isinstance(finished.get('test_accuracy'), float):
            raise ValueError(
                f'{result_path} must be the result of a run: remove it to train again. '
                f'Received: test_accuracy={finished.get("test_accuracy")!r}'
            )
        now = {'backend': devices.check_backend(), 'seed': seed, 'settings': settings}
        training.checkpoint.check_settings(f'the finished run in {folder}', finished, now)
        # Runs of earlier versions have no digest of their data.
        if finished.get('data_digest', digest) != digest:
            raise ValueError(
                f'`resume` must go on with the data of the finished run in {folder}, whose images '
                'or labels have changed since: pass another --out to train on the new ones'
            )
        lacking = pages.not_written(finished, folder)
        added = f'; these flags ask for what it lacks: {lacking}' if lacking else ''
        machine.say(f'{folder} holds a finished run{added}', also_quiet=bool(lacking))
        return finished

    if FLAGS.resume and not checkpoint.exists():
        machine.say(f'{folder} holds nothing to resume: the training starts from the beginning')
    began = time.perf_counter()
    trainer = job.build(recipe, dataset, precision=machine.precision, seed=seed, replicas=replicas)
    build_seconds = time.perf_counter() - began
    kept = f'the checkpoint is kept, {how_to_go_on} from it'
    try:
        trainer.fit(
            dataset.train_images,
            dataset.train_labels,
            recipe.epochs,
            checkpoint=checkpoint,
            resume=FLAGS.resume,
            fingerprint=settings,
            **watch.arguments(recipe, dataset, folder, settings, replicas.chief),
        )
    except OSError:
        if checkpoint.exists():
            command.say_how_to_go_on(kept, kept=True)
        raise

    command.say_how_to_go_on(kept, kept=True)
    machine.say('evaluating on the test images')
    began = time.perf_counter()
    tta = assemble.views(recipe)
    views = trainer.predict_views(dataset.test_images, tta=tta)
    logits = tta.combine(views)
    score = evaluate.metrics(logits, dataset.test_labels)
    plain = evaluate.metrics(views[0], dataset.test_labels)
    eval_seconds = time.perf_counter() - began

    first_step_seconds = None  # since the command's start; of the first run, if it took a step
    if first and trainer.first_step_at:
        first_step_seconds = trainer.first_step_at - startup.STARTED

    result = {
        'recipe': recipe.name,
        'widths': list(recipe.widths),
        'epochs': recipe.epochs,
        'batch_size': recipe.batch_size,
        'seed': seed,
        **shared,
        'backend': devices.check_backend(),
        **about,
        'data_digest': digest,
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
            script,
            seed,
            job.arguments,
            **job.chosen,
            precision=machine.precision,
            device=about['device'],
        ),
        'settings': settings,
        'history': watch.named(trainer.records),
    }
    if job.train_folders:
        result['train_folders'] = job.train_folders  # which evaluate.py reads
    if replicas.chief:
        with trainer.averaged(), runlog.written_whole(folder / 'model.keras') as part:
            model = job.with_pixels(
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
    machine.say(
        f'seed {seed}: test accuracy {100 * score.accuracy:.2f} %, test loss {score.loss:.4f}, '
        f'{trainer.train_seconds:.1f} s of training',
    )
    return result
