"""Memory of fields that are let go of is handed out again, and only then."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from gliodil.pde.memory import Memory, empty

LIKE = torch.zeros(1)


def test_a_field_in_use_is_left_alone_and_one_let_go_of_is_used_again() -> None:
    memory = Memory()
    first = memory.empty(12, 50_000, like=LIKE)
    row, address = first[3], first.data_ptr()
    row.fill_(7.0)
    del first
    other = memory.empty(12, 50_000, like=LIKE)
    other.fill_(1.0)
    assert other.data_ptr() != address  # a view still refers to it
    assert bool((row == 7.0).all())
    del row
    assert memory.empty(12, 50_000, like=LIKE).data_ptr() == address


def test_arrays_that_share_a_fields_memory_keep_it() -> None:
    memory = Memory()
    array = memory.empty(3, 4, like=LIKE).numpy()
    array[:] = 7
    memory.empty(3, 4, like=LIKE).fill_(1.0)
    assert (array == 7).all()


def test_a_level_more_or_less_takes_the_same_memory() -> None:
    memory = Memory()
    address = memory.empty(191, 1000, like=LIKE).data_ptr()
    assert memory.empty(192, 1000, like=LIKE).data_ptr() == address
    assert memory.empty(64, 1000, like=LIKE).data_ptr() != address  # a third of it would waste the rest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0, 5), (1,), (3, 4, 5)])
def test_fields_have_the_shape_precision_and_device_asked_for(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    field = empty(*shape, like=torch.zeros(2, dtype=dtype))
    assert field.shape == shape
    assert field.dtype == dtype
    assert field.is_contiguous()
    assert Memory().empty(2, like=torch.zeros(1, device="meta")).device.type == "meta"


def test_memory_is_let_go_of_with_its_last_field() -> None:
    memory = Memory()
    field = memory.empty(4, like=LIKE)
    free = memory._free  # what outlives it is what would leak
    gone = weakref.ref(memory)
    del memory
    gc.collect()
    assert gone() is None
    field.fill_(1.0)
    assert field.sum() == 4
    assert len(free) == 1
