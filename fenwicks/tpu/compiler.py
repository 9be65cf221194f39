"""libtpu's compiler: from a traced program to what it takes, without a TPU."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import math
import os
import pathlib
import re
import time

import jax
import numpy as np
from jax.experimental import topologies

from fenwicks._files import written_whole
from fenwicks.tpu.chips import LIBTPU_ENVIRONMENT, unknown


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program, for each device.

    Attributes:
        fits: whether it fits the memory; where not, only the next two say anything.
        memory_bytes: arguments, outputs that don't take an argument's place, temporaries and code;
            where it doesn't fit, what the compiler named as too much.
        memory_limit_bytes: what the compiler lets a program have; 0 where it doesn't say.
        flops: floating-point operations; of the body of a loop, once.
        bytes_accessed: to and from memory, near or far; of the body of a loop, once.
        optimal_seconds: the compiler's estimate of the time; of the body of a loop, once. Each
            operation that it has no estimate for takes a second away.
        cycles: what the compiler schedules the operations for, where it says so: not for those
            without an estimate above; of the body of a loop, once.
        scatter_bytes: traffic of the operations `select-and-scatter`, which have no estimate.
        collectives: messages among all devices, of the body of a loop once.
        collective_bytes: the size of the arrays in them, of which each of n devices sends all but
            an n-th.
        compile_seconds: what compiling took.
    """

    fits: bool
    memory_bytes: int
    memory_limit_bytes: int = 0
    flops: float = 0.0
    bytes_accessed: float = 0.0
    optimal_seconds: float = 0.0
    cycles: int = 0
    scatter_bytes: int = 0
    collectives: int = 0
    collective_bytes: int = 0
    compile_seconds: float = 0.0


def topology_devices(topology: str) -> list:
    """The devices of a topology, to compile for.

    Raises:
        ImportError: libtpu isn't installed.
        OSError: it doesn't start.
        ValueError: it doesn't know the topology.
    """
    if importlib.util.find_spec('libtpu') is None:
        raise ImportError("the TPUs' compiler must be installed: pip install libtpu")
    for name, value in LIBTPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        description = topologies.get_topology_desc(platform='tpu', topology_name=topology)
    except jax.errors.JaxRuntimeError as error:
        code, _, reason = str(error).partition(': ')
        if code == 'INVALID_ARGUMENT':
            raise unknown(topology, f'libtpu: {" ".join(reason.split())}') from None
        raise OSError(f'libtpu must start. Received: {error}') from None
    return list(description.devices)


def compile_program(program, arguments, devices, cache=None) -> Compiled:
    """Compiles a program for the devices of a topology.

    Args:
        program: function under `jax.jit`.
        arguments: tuple of trees of `jax.ShapeDtypeStruct`, on those devices.
        devices: the devices.
        cache: folder that remembers what the compiler said, or `None`. JAX's own cache of compiled
            programs can't be read back without a TPU.
    """
    lowered = program.lower(*arguments)
    if cache is None:
        return _compile(lowered, len(devices))
    remembered = pathlib.Path(cache) / f'{_digest(lowered, devices)}.json'
    if remembered.exists():
        return Compiled(**json.loads(remembered.read_text()))
    compiled = _compile(lowered, len(devices))
    remembered.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(remembered) as part:
        part.write_text(json.dumps(dataclasses.asdict(compiled)))
    return compiled


def _digest(lowered, devices):
    """What the compiler's answer depends on, as a name of a file."""
    from importlib.metadata import version

    devices = sorted(devices, key=lambda device: device.id)
    key = [version('libtpu'), jax.__version__, Compiled.__doc__]
    key += [f'{device.device_kind} {device.coords}' for device in devices]
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
        collectives=len(messages := collectives(text, devices)),
        collective_bytes=sum(messages),
        compile_seconds=seconds,
    )


def text_of(program) -> str:
    """The operations of a compiled program.

    Raises:
        OSError: libtpu writes them as this jaxlib can't read.
    """
    try:
        return program.as_text()
    except jax.errors.JaxRuntimeError as error:
        raise OSError(
            "libtpu must be of jax's time to say what it compiled: pip install 'jax[tpu]'. "
            f'Received: {error}'
        ) from None


def sizes_in(message: str) -> tuple[int, int]:
    """The first two sizes in the compiler's message that memory is short: needed, and there.

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
    """The sum of the cycles that operations of a compiled program are scheduled for.

    Example:

    >>> cycles('%a = f32[] add(), backend_config={"estimated_cycles":"12"}')
    12
    """
    return sum(int(number) for number in re.findall(r'"estimated_cycles":"(\d+)"', text))


def scatter_bytes(text: str) -> int:
    """Bytes that the operations `select-and-scatter` of a compiled program read and write.

    That is max pooling's gradient: it reads an image and one value a window, and writes an image.
    """
    pattern = r'= (\w+\[[\d,]*\])\S* select-and-scatter\(.*?window=\{size=[\dx]+ stride=([\dx]+)'
    total = 0
    for shape, strides in re.findall(pattern, text):
        image = bytes_of(shape)
        total += 2 * image + image // math.prod(map(int, strides.split('x')))
    return total


def collectives(text: str, devices: int) -> list[int]:
    """Bytes of the arrays in each message among all devices of a compiled program.

    An `all-gather` and a `reduce-scatter` are of whole arrays; an `all-reduce` is one after the
    other. Where one is cut up to go beside other operations, its parts are a chain, which counts
    once.

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
        'all-gather-start': devices / (devices + 1),  # its shape names the operand too
        'reduce-scatter': devices,
    }
    messages = {}
    for shapes, kind, rest in re.findall(pattern, text):
        chain = re.search(r'chain_id="(\d+)"', rest)
        messages[chain[1] if chain else len(messages), kind] = int(times[kind] * bytes_of(shapes))
    return list(messages.values())


def bytes_of(shapes: str) -> int:
    """Bytes of the arrays in a shape, or a tuple of shapes, as a compiled program has them.

    Example:

    >>> bytes_of('(f32[3,3,64]{2,1,0:T(8,128)}, bf16[10]{0}, s32[])')
    2328
    """
    return sum(
        math.prod(int(side) for side in sides.split(',') if side) * max(1, int(bits) // 8)
        for bits, sides in re.findall(r'\b[a-z]+(\d+)\[([\d,]*)\]', shapes)
    )


def devices_per_chip(devices) -> int:
    """2 where JAX sees the two cores of a chip as two devices."""
    return len(devices) // len(np.unique([device.coords for device in devices], axis=0))
