"""Flat buffers: the tensors of a model as views of one piece of memory, placed as the layout says."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch

from psgd.core.layout import ITEM_BYTES, Layout, Role, TensorSpec
from psgd.errors import ConfigurationError

DTYPES = {name: getattr(torch, name) for name in ITEM_BYTES}


def tensors_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The model's parameters and persistent buffers in ``state_dict`` order; a tied one only by its first name."""
    seen: set[int] = set()
    tensors = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors


def layout_of(tensors: Mapping[str, torch.Tensor]) -> Layout:
    """The layout of a model's tensors.

    Args:
        tensors: by name, as `tensors_of` or ``dict(model.named_parameters())`` gives them.

    Raises:
        ConfigurationError: if a tensor is of a dtype that psgd does not keep, or nothing is trainable.
    """
    return Layout(
        [TensorSpec(n, tuple(t.shape), str(t.dtype).removeprefix("torch."), _role(t)) for n, t in tensors.items()]
    )


def _role(tensor: torch.Tensor) -> Role:
    if isinstance(tensor, torch.nn.Parameter):
        return Role.PARAMETER if tensor.requires_grad else Role.FROZEN
    return Role.BUFFER if tensor.is_floating_point() else Role.COUNTER


def allocate(size: int) -> torch.Tensor:
    """Zeroed memory: (size,) uint8."""
    return torch.zeros(size, dtype=torch.uint8)


def view_bytes(memory: torch.Tensor) -> memoryview:
    """The same memory, (n,) uint8, as a flat writable memoryview of bytes."""
    return memory.numpy().data


def as_memory(payload: memoryview) -> torch.Tensor:
    """The same bytes as a (n,) uint8 tensor; empty ones are copied, as torch can not share them."""
    return torch.from_numpy(np.frombuffer(payload, dtype=np.uint8)) if payload.nbytes else allocate(0)


def view(memory: torch.Tensor, offset: int, elements: int, dtype: str) -> torch.Tensor:
    """``elements`` of a dtype at a byte offset of (n,) uint8 memory, without a copy: (elements,)."""
    return memory[offset : offset + elements * ITEM_BYTES[dtype]].view(DTYPES[dtype])


def views(memory: torch.Tensor, layout: Layout, pushed_only: bool = False) -> dict[str, torch.Tensor]:
    """Every tensor of the layout, by name, as a view of the flat space.

    Args:
        memory: (layout.bytes,) uint8, or (layout.pushed_bytes,) with ``pushed_only``.
        pushed_only: leave out what is frozen.
    """
    return {
        spec.name: view(memory, layout.offsets[index], spec.elements, spec.dtype).view(spec.shape)
        for index, spec in enumerate(layout.tensors)
        if not (pushed_only and spec.role is Role.FROZEN)
    }


def pack(tensors: Mapping[str, torch.Tensor], layout: Layout) -> torch.Tensor:
    """The tensors copied into the flat space.

    Returns:
        (layout.bytes,) uint8; the padding is zero.

    Raises:
        ConfigurationError: if a tensor is missing or has another shape.
    """
    memory = allocate(layout.bytes)
    for name, target in views(memory, layout).items():
        if name not in tensors:
            raise ConfigurationError(f"tensor {name!r} is missing: the layout has it with shape {tuple(target.shape)}")
        source = tensors[name].detach()
        if source.shape != target.shape:
            raise ConfigurationError(
                f"tensor {name!r} must have shape {tuple(target.shape)}, got {tuple(source.shape)}"
            )
        target.copy_(source)
    return memory


def sha256(weights: Mapping[str, torch.Tensor]) -> str:
    """Hash of the float32 tensors, concatenated as little-endian bytes in their order."""
    digest = hashlib.sha256()
    for tensor in weights.values():
        if tensor.dtype is torch.float32:
            digest.update(tensor.detach().cpu().contiguous().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
