"""libtpu's compiler: memory and cost of a traced program, without a TPU."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import logging
import math
import os
import pathlib
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from fenwicks._errors import one_line
from fenwicks._files import check_writable, written_whole
from fenwicks.tpu.chips import LIBTPU_ENVIRONMENT, unknown_topology

_log = logging.getLogger('fenwicks')
_OPTIONS = ('LIBTPU_INIT_ARGS', 'XLA_FLAGS')  # of the compiler


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The compiler's figures for a program, per device. The body of a loop counts once.

    Attributes:
        fits: whether the program fits the memory; if not, only the next two fields are set.
        memory_bytes: arguments, outputs that don't reuse an argument's memory, temporaries and
            code; for a program that doesn't fit, the size in the compiler's message.
        memory_limit_bytes: memory that the compiler allows a program; 0 if it doesn't say.
        flops: floating-point operations.
        bytes_accessed: traffic to all kinds of memory.
        optimal_seconds: the compiler's estimate of the time, minus one second for each operation
            that it has no estimate for.
        cycles: sum of the cycles for which the compiler schedules operations; those without an
            estimate are missing.
        scatter_bytes: traffic of the `select-and-scatter` operations, which have no estimate.
        copied_bytes: what of the traffic is copies that run beside other operations.
        collectives: number of messages among all devices.
        collective_bytes: size of the arrays in them; each of n devices sends (n - 1) / n of it.
        compile_seconds: duration of the compilation.
    """

    fits: bool
    memory_bytes: int
    memory_limit_bytes: int = 0
    flops: float = 0.0
    bytes_accessed: float = 0.0
    optimal_seconds: float = 0.0
    cycles: int = 0
    scatter_bytes: int = 0
    copied_bytes: int = 0
    collectives: int = 0
    collective_bytes: int = 0
    compile_seconds: float = 0.0


def topology_devices(topology: str) -> list:
    """Lists the devices of a topology, to compile for.

    Args:
        topology: such as `'v5e:2x4'`.

    Returns:
        A list of JAX devices that exist in the compiler only.

    Raises:
        ImportError: libtpu isn't installed.
        OSError: libtpu doesn't start.
        ValueError: libtpu doesn't know the topology.
    """
    if importlib.util.find_spec('libtpu') is None:
        raise ImportError("the TPUs' compiler must be installed: pip install libtpu")
    for name, value in LIBTPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        description = topologies.get_topology_desc(
            platform='tpu', topology_name=topology, **_chip_options(topology)
        )
    except jax.errors.JaxRuntimeError as error:
        code, _, reason = str(error).partition(': ')
        if code == 'INVALID_ARGUMENT':
            raise unknown_topology(topology, f'libtpu: {one_line(reason)}') from None
        raise OSError(f'libtpu must start. Received: {one_line(error)}') from None
    return list(description.devices)


def _chip_options(topology):
    # By default libtpu makes each core of a v4 a device; JAX on a real one has one for both.
    return {'chip_config_name': 'megacore'} if topology.startswith('v4:') else {}


def compile_program(
    program: Any,
    arguments: tuple,
    devices: Sequence,
    cache: str | os.PathLike | None = None,
) -> Compiled:
    """Compiles a program for the devices of a topology.

    Args:
        program: a function wrapped in `jax.jit`.
        arguments: tuple of trees of `jax.ShapeDtypeStruct`, sharded over the devices.
        devices: from `topology_devices`.
        cache: folder that keeps the compiler's figures, with the home folder for `~`, or `None`.
            JAX's own cache of compiled programs can't be read without a TPU.

    Returns:
        A `Compiled`.

    Raises:
        OSError: `cache` can't be written to.
    """
    lowered = program.lower(*arguments)
    if cache is None:
        return _compile(lowered, len(devices))
    remembered = pathlib.Path(cache).expanduser() / f'{_digest(lowered, devices)}.json'
    with contextlib.suppress(OSError, ValueError, TypeError):  # not there, or damaged: made anew
        return Compiled(**json.loads(remembered.read_text()))
    check_writable(cache, 'cache')  # before minutes are spent
    compiled = _compile(lowered, len(devices))
    try:
        with written_whole(remembered) as part:
            part.write_text(json.dumps(dataclasses.asdict(compiled)))
    except OSError as error:
        _log.warning("the compiler's figures are not kept: %s", error)
    return compiled


def _digest(lowered, devices):
    """A hash of everything that the compiler's figures depend on."""
    from importlib.metadata import version

    devices = sorted(devices, key=lambda device: device.id)
    fields = ' '.join(field.name for field in dataclasses.fields(Compiled))
    key = [version('libtpu'), jax.__version__, fields]
    key += [f'{device.device_kind} {device.coords}' for device in devices]
    key += [f'{name}={os.environ[name]}' for name in _OPTIONS if name in os.environ]
    return hashlib.sha256('\n'.join([*key, lowered.as_text()]).encode()).hexdigest()


def _compile(lowered, devices):
    began = time.perf_counter()
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        needed, limit = sizes_in(str(error))
        return Compiled(False, needed, limit, compile_seconds=time.perf_counter() - began)
    seconds = time.perf_counter() - began
    memory, costs, text = program.memory_analysis(), program.cost_analysis(), text_of(program)
    messages = collectives(text, devices)
    return Compiled(
        fits=True,
        memory_bytes=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes,
        flops=costs['flops'],
        bytes_accessed=costs['bytes accessed'],
        optimal_seconds=costs['optimal_seconds'],
        cycles=cycles(text),
        scatter_bytes=scatter_bytes(text),
        copied_bytes=copied_bytes(text),
        collectives=len(messages),
        collective_bytes=sum(messages),
        compile_seconds=seconds,
    )


def text_of(program: Any) -> str:
    """The operations of a compiled program, as text.

    Raises:
        OSError: this jaxlib can't read libtpu's format.
    """
    try:
        return program.as_text()
    except jax.errors.JaxRuntimeError as error:
        raise OSError(
            "libtpu must be the version that belongs to this jax: pip install 'jax[tpu]'. "
            f'Received: {one_line(error)}'
        ) from None


def sizes_in(message: str) -> tuple[int, int]:
    """The first two sizes in the compiler's out-of-memory message: needed and available bytes.

    Example:

    >>> sizes_in('temporaries (17.50G) exceeds available HBM (15.75G)')
    (18790481920, 16911433728)
    """
    units = {'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
    sizes = [
        int(float(number) * units[unit])
        for number, unit in re.findall(r'\b(\d+(?:\.\d+)?)([KMGT])\b', message)
    ]
    needed, limit, *_ = [*sizes, 0, 0]
    return needed, limit


def cycles(text: str) -> int:
    """Adds up the cycles for which the operations of a compiled program are scheduled.

    Example:

    >>> cycles('%a = f32[] add(), backend_config={"estimated_cycles":"12"}')
    12
    """
    return sum(int(number) for number in re.findall(r'"estimated_cycles":"(\d+)"', text))


def scatter_bytes(text: str) -> int:
    """Bytes that the `select-and-scatter` operations of a compiled program read and write.

    This is the gradient of max pooling: it reads an image and one value per window, and writes an
    image.
    """
    pattern = r'= (\w+\[[\d,]*\])\S* select-and-scatter\(.*?window=\{size=[\dx]+ stride=([\dx]+)'
    total = 0
    for shape, strides in re.findall(pattern, text):
        image = bytes_of(shape)
        total += 2 * image + image // math.prod(map(int, strides.split('x')))
    return total


def copied_bytes(text: str) -> int:
    """Bytes that the compiler counts for copies that run beside other operations.

    It moves arrays ahead of their use to a faster memory, or later out of it. It counts a copy's
    bytes four times: read, written and, as part of the result, the source again where the copy
    starts, and written where it ends; a slice's three times, without the source. The operations
    that use the arrays count, too, as if they reached into the main memory.

    Example:

    >>> copied_bytes('%a = (f32[8,2]{1,0:S(1)}, f32[8,2]{1,0}, u32[]) copy-start(%x)')
    256
    """
    array = r'(\w+\[[\d,]*\])'
    copies = re.findall(rf'= \({array}[^=]* copy-start\(', text)
    slices = re.findall(rf'= \(\({array}[^=]*?\), {array}[^=]* slice-start\(', text)
    return 4 * sum(map(bytes_of, copies)) + 3 * sum(bytes_of(part) for _, part in slices)


def collectives(text: str, devices: int) -> list[int]:
    """Bytes of the arrays in each message among all devices of a compiled program.

    An `all-gather` and a `reduce-scatter` count the whole array once, an `all-reduce`, which is
    both, twice. The compiler may cut one up to overlap it with other operations; the parts share a
    chain's number and count as one message.

    Example:

    >>> collectives('%a = f32[8,2] all-gather(%x)\\n%b = f32[1,2] reduce-scatter(%y)', devices=8)
    [64, 64]
    """
    pattern = (
        r'= (.*) (all-reduce|all-reduce-start|all-gather|all-gather-start|reduce-scatter)\((.*)'
    )
    times = {
        **dict.fromkeys(('all-reduce', 'all-reduce-start'), 2),
        'all-gather': 1,
        'all-gather-start': devices / (devices + 1),  # its shape includes the operand's
        'reduce-scatter': devices,
    }
    messages: dict[tuple, int] = {}
    for shapes, kind, rest in re.findall(pattern, text):
        chain = re.search(r'chain_id="(\d+)"', rest)
        messages[chain[1] if chain else len(messages), kind] = int(times[kind] * bytes_of(shapes))
    return list(messages.values())


def bytes_of(shapes: str) -> int:
    """Bytes of the arrays in a shape, or a tuple of shapes, in a compiled program's notation.

    Example:

    >>> bytes_of('(f32[3,3,64]{2,1,0:T(8,128)}, bf16[10]{0}, s32[])')
    2328
    """
    return sum(
        math.prod(int(side) for side in sides.split(',') if side) * max(1, int(bits) // 8)
        for bits, sides in re.findall(r'\b[a-z]+(\d+)\[([\d,]*)\]', shapes)
    )


def devices_per_chip(devices: Sequence) -> int:
    """2 if JAX treats the two halves of a chip as two devices, else 1."""
    return len(devices) // len(np.unique([device.coords for device in devices], axis=0))
