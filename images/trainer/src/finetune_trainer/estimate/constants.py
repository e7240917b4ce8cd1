"""The few figures of the estimate that are measured rather than acted out; docs/memory.md has the measurements."""

from __future__ import annotations

MIB = 1 << 20

WORKSPACE_BYTES = 300 * MIB
"""What kernels take for themselves and no operation shows: workspaces of cuBLAS (32 MiB on Hopper, by PyTorch's documentation
of CUBLAS_WORKSPACE_CONFIG) and cuBLASLt, scratch of attention and normalisation. Measured: 0.1 GiB plain, 0.5 GiB fused."""
CONTEXT_BYTES = 768 * MIB
"""CUDA's context and loaded kernels: memory in use by the device less memory that PyTorch reserved, the same at all points."""
GAP_SHARE = 0.05
"""Of activations and logits: what the allocator cannot use between its blocks, even after it has given back what is free."""
