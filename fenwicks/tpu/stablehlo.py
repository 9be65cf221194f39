"""Imports a program that another framework wrote as StableHLO into JAX."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import export
from jax.interpreters import mlir
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

_DTYPES = {'f32': 'float32', 'bf16': 'bfloat16', 'i32': 'int32', 'ui8': 'uint8', 'i1': 'bool'}


def imported(serialized: bytes) -> tuple[Callable, list]:
    """Turns a StableHLO module into a JAX function.

    Args:
        serialized: the module; its function `main` takes and returns arrays of known shapes.

    Returns:
        The function, and a list of the `jax.ShapeDtypeStruct`s of its arguments.
    """
    context = mlir.make_ir_context()
    context.allow_unregistered_dialects = True
    with context:
        module = ir.Module.parse(serialized)
        _erase_copies(module)
        main = next(
            operation
            for operation in module.body.operations
            if ir.StringAttr(operation.attributes['sym_name']).value == 'main'
        )
        kind = ir.FunctionType(ir.TypeAttr(main.attributes['function_type']).value)
        arguments, results = ([_array(t) for t in types] for types in (kind.inputs, kind.results))
        portable = stablehlo.serialize_portable_artifact(module, stablehlo.get_minimum_version())
    count, result_count = len(arguments), len(results)
    exported = export.Exported(
        fun_name='main',
        in_tree=jax.tree.structure(((0,) * count, {})),
        in_avals=tuple(arguments),
        out_tree=jax.tree.structure((0,) * result_count),
        out_avals=tuple(results),
        in_shardings_hlo=(None,) * count,
        out_shardings_hlo=(None,) * result_count,
        _has_named_shardings=False,
        _in_named_shardings=(None,) * count,
        _out_named_shardings=(None,) * result_count,
        nr_devices=1,
        platforms=('tpu',),
        ordered_effects=(),
        unordered_effects=(),
        disabled_safety_checks=(),
        mlir_module_serialized=portable,
        calling_convention_version=export.maximum_supported_calling_convention_version,
        module_kept_var_idx=tuple(range(count)),
        uses_global_constants=False,
        _get_vjp=None,
    )
    return exported.call, [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arguments]


def _array(kind):
    kind = ir.RankedTensorType(kind)
    return jax.core.ShapedArray(tuple(kind.shape), _DTYPES[str(kind.element_type)])


def _erase_copies(module):
    """Removes copies that only TensorFlow's compiler knows and that change nothing."""
    copies = []

    def collect(operation):
        if operation.name == 'mhlo.copy':
            copies.append(operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(collect)
    for copy in copies:
        copy.results[0].replace_all_uses_with(copy.operands[0])
        copy.erase()
