"""Asking for memory before it is needed. Compiled.

What is kept of an entity that has been quiet is in none of the processor's caches, and the fold of one event is shorter than the way to
memory. So the fold asks, while it works on one event, for what the next ones will read; who asks does not wait. Nothing is read by this,
so an address outside of an array does no harm, and a result can never depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from headrace.features.tables import Records
from headrace.types import Int64s

LINE_BYTES = 64
_FOR_READING, _SOON_AGAIN, _NO_CODE = 0, 3, 1
"""The arguments of LLVM's `llvm.prefetch`."""


def _prefetch(_typing: Any, array: Any, _element: Any, _offset_bytes: Any) -> Any:  # noqa: ANN401 - numba's own types say nothing
    def generate(compiler: Any, builder: Any, signature: Any, given: Any) -> Any:  # noqa: ANN401
        found = compiler.make_array(signature.args[0])(compiler, builder, given[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        at = builder.add(builder.mul(given[1], builder.extract_value(found.strides, 0)), given[2])
        place = builder.gep(builder.bitcast(found.data, byte), [at])
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        asked = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(asked, [place, *(number(argument) for argument in (_FOR_READING, _SOON_AGAIN, _NO_CODE))])
        return compiler.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate


prefetch = cast("Callable[[Records | Int64s, int, int], None]", intrinsic(_prefetch))
"""`prefetch(array, element, offset)` asks for the cache line so many bytes behind the beginning of an element of the first axis."""
