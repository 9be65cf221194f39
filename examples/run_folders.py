"""The folders of runs: who writes there, and which runs go on with --resume."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import pathlib
import re
import resource

from fenwicks import command, runlog

WRITTEN = ('README.md', 'model.keras', 'report.html', 'report.npz')  # a user's might be replaced
_LONGEST = 150  # bytes of a recipe's name in that of a folder, which may have 255


@dataclasses.dataclass(frozen=True)
class RunFolders:
    """Where the runs of a command are kept: in a folder, or in folders below it.

    Args:
        name: of what is trained; a new folder is named after it.
        out: the folder that holds all; None for a new one.
        count: number of runs.
        resume: whether to go on with runs that are there.
        of_each: name of the flag that says how many runs there are.
    """

    name: str
    out: pathlib.Path | None
    count: int
    resume: bool
    of_each: str = 'runs'

    def of_runs(self) -> list[pathlib.Path]:
        """The folder of each run."""
        if self.count == 1:
            return [self.out]
        return [self.out / str(run) for run in range(self.count)]

    def claim(self, locks: contextlib.ExitStack) -> RunFolders:
        """Creates the folders and locks them for this process.

        Args:
            locks: keeps the locks until it is closed.

        Returns:
            The same with `out`, which may be a new folder.
        """
        with command.renamed({'folder': 'out', 'path': 'out'}):
            out = new_folder(default_out(self.name)) if self.out is None else self.out
            claimed = dataclasses.replace(self, out=out)
            for folder in dict.fromkeys([out, *claimed.of_runs()]):
                runlog.check_writable(folder)
                locks.enter_context(runlog.locked(folder))
        if self.out is not None:
            claimed.check()  # again, since another process may have trained there meanwhile
        return claimed

    def check(self) -> None:
        """Raises if there are too many runs, or those in `out` and --resume don't go together."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2  # a lock each; the rest have half
        if self.count > most:
            raise ValueError(
                f'`{self.of_each}` must be at most {most}, half the files that may be open '
                f'(ulimit -n). Received: {self.of_each}={self.count}'
            )
        if self.out is None:
            if self.resume:
                raise ValueError(
                    '`resume` needs the folder of the interrupted training: pass --out=...'
                )
            return
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f'`out` must be a folder. Received: out={self.out}, a file')
        if self.resume and not self.out.is_dir():
            raise ValueError(
                f'`resume` needs the folder of the interrupted training. Received: out={self.out}'
            )
        if self.resume:
            self._check_same_runs()
        else:
            self._check_no_run()
        self._check_no_file_of_others()

    def _named(self, folder):
        """`out` as it was passed, and the folder in it that is at fault."""
        return f'out={self.out}' + ('' if folder == self.out else f', which holds {folder}')

    def _check_no_run(self):
        """Raises if a run lies in `out`, or where one of these would go."""
        for folder in (self.out, self.out / '0', *self.of_runs()):
            if holds_run(folder):
                raise ValueError(
                    '`out` must not hold a run already: pass --resume to go on with it, or '
                    f'another folder. Received: {self._named(folder)}'
                )

    def _check_no_file_of_others(self):
        """Raises if a file that the runs write is there, but no run that may have written it."""
        written = {folder: WRITTEN for folder in self.of_runs() if not holds_run(folder)}
        if self.count > 1 and not any(map(holds_run, self.of_runs())):
            written[self.out] = ('report.html',)  # which compares the runs
        for folder, names in written.items():
            for name in names:
                if (folder / name).exists():
                    raise ValueError(
                        f'`out` must be a folder without {name}, which a run writes. '
                        f'Received: {self._named(folder)}'
                    )

    def _check_same_runs(self):
        """Raises if `out` holds one run where several are to go on, or the other way round."""
        if self.count > 1:
            place, is_there = self.out, holds_run(self.out)
        else:
            place = self.out / '0'
            is_there = place.is_dir() and not holds_run(self.out)
        if is_there:
            raise ValueError(
                f'`{self.of_each}` must be 1 to resume a run that lies in `out` itself, and more '
                f'for runs in folders of their own. Received: {self.of_each}={self.count}, while '
                f'one lies in {place}'
            )


def default_out(name: str) -> pathlib.Path:
    """A folder named after the time and what is trained."""
    name = re.sub(r'[^-+=.,\w]', '_', name)  # a file's recipe may be called anything
    name = name.encode()[:_LONGEST].decode(errors='ignore')
    return pathlib.Path('out') / f'{datetime.datetime.now():%Y%m%d-%H%M%S}-{name}'


def new_folder(path: pathlib.Path) -> pathlib.Path:
    """Creates a folder that nobody else has, under this name or with a number after it."""
    runlog.check_writable(path.parent)
    for number in itertools.count(1):
        folder = path if number == 1 else path.with_name(f'{path.name}-{number}')
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError


def holds_run(folder: pathlib.Path) -> bool:
    """Whether a finished or an interrupted run lies in a folder."""
    return any((folder / name).exists() for name in ('result.json', 'checkpoint.npz'))
