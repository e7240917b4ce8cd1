"""Each Triton kernel computes what its plain form does: on a GPU where there is one, else in Triton's interpreter."""

import os

import pytest
import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and not os.environ.get("TRITON_INTERPRET"):
    # Triton reads it when it is first imported, in this process by other tests perhaps.
    pytest.skip("needs a GPU or TRITON_INTERPRET=1: run by make parts", allow_module_level=True)

from finetune_trainer.kernels import (  # noqa: E402
    copy_triton,
    float8_triton,
    four_bits_triton,
    gate_triton,
    loss_triton,
    norm_triton,
    rotation_triton,
)
from finetune_trainer.kernels.plain_operations import PlainOperations  # noqa: E402

PLAIN = PlainOperations()
ROWS = 5


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape)


def on_device(*tensors: Tensor) -> list[Tensor]:
    return [tensor.to(DEVICE) for tensor in tensors]


def same(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found.cpu(), expected, rtol=tolerance, atol=tolerance)


def test_a_copy_goes_into_a_wider_tensor() -> None:
    x, out = random(ROWS, 100), torch.zeros(ROWS, 164)
    on_x, on_out = on_device(x, out)
    copy_triton.copy(on_x, on_out[:, :100])
    same(on_out[:, :100], x)
    assert not on_out[:, 100:].any()


@pytest.mark.parametrize("width", [64, 100, 3584])
def test_a_norm_is_written_into_a_wider_tensor_and_leaves_the_rest_of_it(width: int) -> None:
    x, gain = random(ROWS, width), random(width)
    expected = torch.full((ROWS, width + 20), 7.0)
    found, on_x, on_gain = on_device(expected, x, gain)
    rstd = PLAIN.norm(x, gain, 1e-6, expected[:, :width])
    same(norm_triton.forward(on_x, on_gain, 1e-6, found[:, :width]), rstd)
    same(found, expected)


@pytest.mark.parametrize("width", [64, 100, 3584])
def test_the_gradient_of_a_norm_adds_what_went_past_it(width: int) -> None:
    x, gain, grad, carried = random(ROWS, width), random(width), random(ROWS, width), random(ROWS, width)
    rstd = PLAIN.norm(x, gain, 1e-6, torch.empty(ROWS, width))
    on_grad, on_x, on_gain, on_rstd, on_carried = on_device(grad, x, gain, rstd, carried)
    assert norm_triton.backward(on_grad, on_x, on_gain, on_rstd, on_carried)[1] is None
    found = norm_triton.backward(on_grad, on_x, on_gain.requires_grad_(), on_rstd, on_carried)
    with torch.no_grad():
        expected = PLAIN.norm_backward(grad, x, gain.requires_grad_(), rstd, carried)
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert other is not None
        same(one, other, 1e-4)


@pytest.mark.parametrize("width", [32, 1100])
def test_the_gated_product_and_its_gradient(width: int) -> None:
    gate_up, grad = random(ROWS, 2 * width), random(ROWS, width)
    product, of_gate_up = torch.zeros(ROWS, width + 64), torch.zeros(ROWS, 2 * width + 64)
    on_gate_up, on_grad, on_product, on_of_gate_up = on_device(gate_up, grad, product, of_gate_up)
    PLAIN.gate(gate_up, product[:, :width])
    PLAIN.gate_backward(grad, gate_up, of_gate_up[:, : 2 * width])
    gate_triton.forward(on_gate_up, on_product[:, :width])
    gate_triton.backward(on_grad, on_gate_up, on_of_gate_up[:, : 2 * width])
    same(on_product, product)
    same(on_of_gate_up, of_gate_up)
    same(on_grad, product[:, :width])


@pytest.mark.parametrize("normed", [False, True], ids=["plain heads", "normed heads"])
@pytest.mark.parametrize("heads", [1, 5, 8])
def test_rotation_there_and_its_gradient_back(heads: int, normed: bool) -> None:
    x, grad = random(ROWS, heads * 16 + 8)[:, : heads * 16].unflatten(1, (heads, 16)), random(ROWS, heads, 16)
    angles = random(ROWS, 8).repeat(1, 2)
    gain = random(16) if normed else None
    on_gain = gain if gain is None else gain.to(DEVICE)
    there, back = torch.zeros(ROWS, heads, 16), torch.zeros(ROWS, heads, 16)
    on_x, on_grad, cos, sin, on_there, on_back = on_device(x, grad, angles.cos(), angles.sin(), there, back)
    PLAIN.rotate(x, there, angles.cos(), angles.sin(), gain, 1e-6)
    PLAIN.rotate_backward(grad, x, back, angles.cos(), angles.sin(), gain, 1e-6)
    rotation_triton.forward(on_x, on_there, cos, sin, on_gain, 1e-6)
    rotation_triton.backward(on_grad, on_x, on_back, cos, sin, on_gain, 1e-6)
    same(on_there, there)
    same(on_back, back, 1e-4)


@pytest.mark.parametrize("vocabulary", [50, 5000])
def test_cross_entropy_turns_logits_into_their_gradients(vocabulary: int) -> None:
    logits = (4 * random(3, vocabulary)).requires_grad_()
    targets = torch.tensor([0, vocabulary - 1, 7])
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    losses.sum().backward()
    on_logits, on_targets = on_device(logits.detach().clone(), targets)
    found, gradients = loss_triton.loss(on_logits, on_targets)
    same(found, losses.detach())
    assert logits.grad is not None
    same(gradients, logits.grad)


def test_float8_rows_give_the_numbers_back_to_three_bits() -> None:
    values = random(6, 5000) * torch.logspace(-3, 3, 6).unsqueeze(1)
    [on_values] = on_device(values)
    small, scale = float8_triton.to_float8(on_values)
    same(scale, PLAIN.to_float8(values)[1])
    if DEVICE == "cpu":
        # The interpreter halves what rounds up to a power of two.
        assert (small.float() == PLAIN.to_float8(values)[0].float()).float().mean() > 0.95
        return
    given_back = (small.float() * scale).cpu()
    assert ((given_back - values).abs() <= values.abs() / 16 + scale.cpu() * 2**-9).all()


@pytest.mark.parametrize("nested", [True, False], ids=["double", "single"])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bit_weights_are_bitsandbytes_own(kind: str, nested: bool) -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(random(96, 128).to(DEVICE), quant_type=kind, compress_statistics=nested, blocksize=64)
    found = torch.zeros(96, 192, device=DEVICE)
    four_bits_triton.dequantize(packed, state, found[:, :128])
    same(found[:, :128], dequantize_4bit(packed, state).cpu(), 1e-6)
    assert not found[:, 128:].any()
