"""Matrix products in one fixed order of operations: c += a @ b for float32 matrices of some tens of rows and columns.

Each entry of c is one chain of fused multiply-adds over the inner index, whatever its row, its column and its
neighbours. So a result depends neither on an agent's place in the batch, nor on the batch's size, nor on the width of
the processor's vectors; a BLAS promises none of that. At these sizes it is faster too (`benchmarks/products.py`).

The vectors run along the columns of c. Blocks of c ("tiles") stay in registers while the inner index runs.
"""

import llvmlite.binding
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config

from basics.compiler_cache import intrinsic


def _has_wide_vectors() -> bool:
    # numba makes these settings as it reads the environment
    name, features = config.CPU_NAME, config.CPU_FEATURES  # pyright: ignore[reportAttributeAccessIssue]
    if name in (None, "host") and features is None:
        return bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
    return "+avx512f" in (features or "")


LANES, ROWS = (16, 8) if _has_wide_vectors() else (8, 4)  # columns in a vector, rows in a tile: what registers hold
F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR, MASK = ir.VectorType(F32, LANES), ir.VectorType(ir.IntType(1), LANES)


def make_tile(rows: int, vectors: int, masked: bool = False):
    """Return compiled code that adds to one block of c, of `rows` rows and `vectors` * LANES columns.

    It is called `tile(a, a_row, a_column, b, b_row, c, c_row, inner, columns)`: the addresses of the block's first row
    in a, of its first column in b and of its first entry in c, all strides in bytes, the inner dimension, and, for a
    `masked` tile, how many of the vector's columns there are.
    """

    @intrinsic
    def tile(context, a, a_row, a_column, b, b_row, c, c_row, inner, columns):
        def code(context, builder, signature, arguments):
            a, a_row, a_column, b, b_row, c, c_row, inner, columns = arguments
            module = builder.module

            def declare(name, result, *parameters):
                return cgutils.get_or_insert_function(module, ir.FunctionType(result, parameters), name)

            def splat(value, kind):
                first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
                return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))

            if masked:
                lanes = ir.VectorType(I64, LANES)
                mask = builder.icmp_unsigned("<", ir.Constant(lanes, list(range(LANES))), splat(columns, lanes))
                pointer, nothing = VECTOR.as_pointer(), ir.Constant(VECTOR, [0.0] * LANES)
                masked_load = declare(f"llvm.masked.load.v{LANES}f32.p0", VECTOR, pointer, I32, MASK, VECTOR)
                masked_store = declare(f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), VECTOR, pointer, I32, MASK)

            def load(address):
                pointer = builder.inttoptr(address, VECTOR.as_pointer())
                if masked:
                    return builder.call(masked_load, [pointer, I32(4), mask, nothing])
                return builder.load(pointer, align=4)

            def store(value, address):
                pointer = builder.inttoptr(address, VECTOR.as_pointer())
                if masked:
                    builder.call(masked_store, [value, pointer, I32(4), mask])
                else:
                    builder.store(value, pointer, align=4)

            fused = declare(f"llvm.fma.v{LANES}f32", VECTOR, VECTOR, VECTOR, VECTOR)
            offsets = [I64(4 * LANES * v) for v in range(vectors)]
            places = [
                builder.add(builder.add(c, builder.mul(I64(r), c_row)), offset)
                for r in range(rows)
                for offset in offsets
            ]
            a_rows = [builder.add(a, builder.mul(I64(r), a_row)) for r in range(rows)]
            begun = [load(place) for place in places]
            before, body, after = (
                builder.block,
                builder.append_basic_block("inner"),
                builder.append_basic_block("after"),
            )
            builder.cbranch(builder.icmp_signed(">", inner, I64(0)), body, after)

            builder.position_at_end(body)
            k = builder.phi(I64)
            sums = [builder.phi(VECTOR) for _ in places]
            b_now, a_now = builder.add(b, builder.mul(k, b_row)), builder.mul(k, a_column)
            values = [load(builder.add(b_now, offset)) for offset in offsets]
            new = []
            for r in range(rows):
                weight = builder.load(builder.inttoptr(builder.add(a_rows[r], a_now), F32.as_pointer()), align=4)
                weight = splat(weight, VECTOR)
                for v in range(vectors):
                    new.append(builder.call(fused, [weight, values[v], sums[r * vectors + v]]))
            next_k = builder.add(k, I64(1))
            k.add_incoming(I64(0), before)
            k.add_incoming(next_k, body)
            for total, first, last in zip(sums, begun, new, strict=True):
                total.add_incoming(first, before)
                total.add_incoming(last, body)
            builder.cbranch(builder.icmp_signed("<", next_k, inner), body, after)

            builder.position_at_end(after)
            results = []
            for first, last in zip(begun, new, strict=True):
                result = builder.phi(VECTOR)
                result.add_incoming(first, before)
                result.add_incoming(last, body)
                results.append(result)
            for result, place in zip(results, places, strict=True):
                store(result, place)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 9), code

    return tile


_rows_by_two, _rows_by_one, _rows_by_part = make_tile(ROWS, 2), make_tile(8, 1), make_tile(8, 1, masked=True)
_one_by_two, _one_by_one, _one_by_part = make_tile(1, 2), make_tile(1, 1), make_tile(1, 1, masked=True)
WIDTH = 4 * LANES  # bytes of a vector


@njit("(int64, int64, int64, int64, int64, int64, int64, int64, int64, int64)", cache=True, nogil=True)
def _panel(a, a_row, a_column, b, b_row, c, c_row, rows, inner, columns):
    """Add to as many columns of c as one or two vectors hold."""
    done = 0
    if columns == 2 * LANES:
        while rows - done >= ROWS:
            _rows_by_two(a + done * a_row, a_row, a_column, b, b_row, c + done * c_row, c_row, inner, columns)
            done += ROWS
        while done < rows:
            _one_by_two(a + done * a_row, a_row, a_column, b, b_row, c + done * c_row, c_row, inner, columns)
            done += 1
    elif columns == LANES:
        while rows - done >= 8:
            _rows_by_one(a + done * a_row, a_row, a_column, b, b_row, c + done * c_row, c_row, inner, columns)
            done += 8
        while done < rows:
            _one_by_one(a + done * a_row, a_row, a_column, b, b_row, c + done * c_row, c_row, inner, columns)
            done += 1
    else:
        while rows - done >= 8:
            _rows_by_part(a + done * a_row, a_row, a_column, b, b_row, c + done * c_row, c_row, inner, columns)
            done += 8
        while done < rows:
            _one_by_part(a + done * a_row, a_row, a_column, b, b_row, c + done * c_row, c_row, inner, columns)
            done += 1


@njit("int64(int64, int64)", cache=True, nogil=True)
def _columns_at(j, columns):
    """Return how many columns the panel that begins at column j has."""
    left = columns - j
    return 2 * LANES if left >= 2 * LANES else min(left, LANES)


@njit("(int64, int64, int64, int64, int64, int64, int64, int64, int64, int64)", cache=True, nogil=True)
def _add_product(a, a_row, a_column, b, b_row, c, c_row, rows, inner, columns):
    j = 0
    while j < columns:
        width = _columns_at(j, columns)
        _panel(a, a_row, a_column, b + 4 * j, b_row, c + 4 * j, c_row, rows, inner, width)
        j += width


@njit(cache=True, nogil=True)
def add_product(a, b, c):
    """c [M, N] += a [M, K] @ b [K, N]; float32, rows of b and c contiguous, a strided in any way (`w.T` too)."""
    _add_product(
        a.ctypes.data, a.strides[0], a.strides[1], b.ctypes.data, b.strides[0], c.ctypes.data, c.strides[0],
        c.shape[0], b.shape[0], c.shape[1],
    )  # fmt: skip
