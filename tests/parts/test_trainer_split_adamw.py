"""AdamW with split masters is AdamW on float32 weights, to the last bit."""

import copy
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from finetune_trainer.train.split_adamw import SplitAdamW, join, split_into

TIE = 0x8000
LOWS = [0, 1, 0x7FFF, TIE, 0x8001, 0xFFFF]
HIGHS = [0x0000, 0x0001, 0x007F, 0x0080, 0x3F80, 0x3F81, 0x7F7F, 0x7F80, 0x7FC0, 0x8000, 0x8001, 0xBF80, 0xFF7F, 0xFF80]
"""Zero, the smallest and largest subnormal, the smallest normal, 1, its neighbour, the largest, infinity, no number; both signs."""
CONSTANTS: dict[str, Any] = {"lr": 3e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
SHAPES = [(37, 19), (64,), ()]


def patterns(highs: Tensor, lows: Tensor) -> Tensor:
    """Float32 numbers with every upper half of their bits beside every lower half."""
    bits = (highs.unsqueeze(1) << 16) + lows
    return bits.flatten().to(torch.int32).view(torch.float32)


def signed(halves: list[int]) -> Tensor:
    return torch.tensor(halves).to(torch.int16).to(torch.int64)


@pytest.mark.parametrize(
    ("highs", "lows"),
    [(torch.arange(-(1 << 15), 1 << 15), torch.tensor(LOWS)), (signed(HIGHS), torch.arange(1 << 16))],
    ids=["every upper half", "every lower half"],
)
def test_weight_and_remainder_give_the_master_back_bit_for_bit(highs: Tensor, lows: Tensor) -> None:
    master = patterns(highs, lows)
    weight, remainder = torch.empty_like(master, dtype=torch.bfloat16), torch.empty_like(master, dtype=torch.int16)
    split_into(master, weight, remainder)
    again = join(weight, remainder)
    is_number = ~master.isnan()
    assert torch.equal(again.view(torch.int32)[is_number], master.view(torch.int32)[is_number])
    assert torch.equal(again.isnan(), ~is_number)
    assert torch.equal(weight.isnan(), ~is_number), "a weight hides that its master is not a number"
    apart = weight.view(torch.int16) != master.bfloat16().view(torch.int16)
    is_tie = (master.view(torch.int32) & 0xFFFF) == TIE
    assert not (apart & is_number & ~is_tie).any(), "only ties round otherwise than torch rounds them"


def some_parameters(dtype: torch.dtype) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter((torch.randn(shape) * 0.02).bfloat16().to(dtype)) for shape in SHAPES]


def give_gradients(parameters: list[nn.Parameter], step: int) -> None:
    """The same bf16 gradients for parameters of any number format."""
    torch.manual_seed(step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape).bfloat16().to(parameter.dtype)


def masters(optimizer: SplitAdamW, parameters: list[nn.Parameter]) -> list[Tensor]:
    return [join(parameter.detach(), optimizer.state[parameter]["remainder"]) for parameter in parameters]


def assert_equal_bits(found: list[Tensor], expected: list[nn.Parameter]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.view(torch.int32), other.detach().view(torch.int32))


def test_two_hundred_steps_leave_the_masters_that_adamw_on_float32_weights_leaves() -> None:
    split, plain = some_parameters(torch.bfloat16), some_parameters(torch.float32)
    groups = [{"params": split[:1]}, {"params": split[1:], "weight_decay": 0.0}]
    optimizer = SplitAdamW(groups, **CONSTANTS)
    peer = torch.optim.AdamW([{"params": plain[:1]}, {"params": plain[1:], "weight_decay": 0.0}], **CONSTANTS)
    schedules = [torch.optim.lr_scheduler.LinearLR(each, 0.1, 1.0, 50) for each in (optimizer, peer)]
    for step in range(200):
        give_gradients(split, step)
        give_gradients(plain, step)
        optimizer.step()
        peer.step()
        for schedule in schedules:
            schedule.step()
    assert_equal_bits(masters(optimizer, split), plain)
    for weight, master in zip(split, plain, strict=True):
        assert torch.equal(weight, master.bfloat16())


def test_clipping_scales_in_float32_and_for_one_step() -> None:
    split, plain = some_parameters(torch.bfloat16), some_parameters(torch.float32)
    optimizer, peer = SplitAdamW(split, **CONSTANTS), torch.optim.AdamW(plain, **CONSTANTS)
    for step, longest in enumerate((1.0, 0.5, 1e9)):
        give_gradients(split, step)
        give_gradients(plain, step)
        norm = optimizer.clip(longest)
        assert norm.dtype is torch.float32
        assert norm.item() == pytest.approx(nn.utils.get_total_norm([each.grad for each in plain]).item(), rel=1e-6)
        for parameter in plain:
            parameter.grad.mul_((longest / (norm + 1e-6)).clamp(max=1.0))
        optimizer.step()
        peer.step()
    give_gradients(split, 3)
    give_gradients(plain, 3)
    optimizer.step()
    peer.step()
    assert_equal_bits(masters(optimizer, split), plain)


def test_gradients_of_several_passes_are_added_up_in_float32() -> None:
    split, plain = some_parameters(torch.bfloat16), some_parameters(torch.float32)
    optimizer, peer = SplitAdamW(split, **CONSTANTS), torch.optim.AdamW(plain, **CONSTANTS)
    for step in range(5):
        peer.zero_grad()
        for each in range(7):
            torch.manual_seed(step * 7 + each)
            with optimizer.gradients.taking(is_last=each == 6, is_only=False):
                for weight, master in zip(split, plain, strict=True):
                    slope = torch.randn(weight.shape).bfloat16()
                    weight.backward(slope)
                    assert weight.grad is None, "the gradient of one pass outlives it"
                    master.backward(slope.float())
        optimizer.step()
        peer.step()
    assert_equal_bits(masters(optimizer, split), plain)
    give_gradients(split, 99)
    give_gradients(plain, 99)
    optimizer.step()
    peer.step()
    assert_equal_bits(masters(optimizer, split), plain)


def test_saved_state_goes_on_as_if_nothing_had_happened() -> None:
    parameters = some_parameters(torch.bfloat16)
    optimizer = SplitAdamW(parameters, **CONSTANTS)
    for step in range(10):
        give_gradients(parameters, step)
        optimizer.step()
    others = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    another = SplitAdamW(others, lr=1.0)
    another.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(10, 20):
        for each, owned in ((optimizer, parameters), (another, others)):
            give_gradients(owned, step)
            each.step()
    for one, other in zip(masters(optimizer, parameters), masters(another, others), strict=True):
        assert torch.equal(one, other)


def test_weights_in_float32_are_refused() -> None:
    with pytest.raises(TypeError, match=r"parameters in torch\.float32, expected torch\.bfloat16 alone"):
        SplitAdamW(some_parameters(torch.float32))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The GPU's kernel, run by Triton's interpreter."""
    pytest.importorskip("triton", reason="Triton comes with PyTorch for GPUs")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    name = "finetune_trainer.kernels.split_adamw_triton"
    sys.modules.pop(name, None)
    yield importlib.import_module(name)
    # It reads the variable when it is imported.
    sys.modules.pop(name, None)


@pytest.mark.parametrize("summed", [False, True], ids=["bf16 gradient", "float32 sum"])
@pytest.mark.parametrize("count", [1, 1024, 3001])
def test_the_gpu_s_kernel_computes_the_same_up_to_rounding(kernel: ModuleType, count: int, summed: bool) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter((torch.randn(count) * 0.02).bfloat16())
    optimizer = SplitAdamW([weight], **CONSTANTS)
    high, low = weight.detach().clone(), torch.zeros(count, dtype=torch.int16)
    average, square = torch.zeros(count), torch.zeros(count)
    for step in range(1, 21):
        give_gradients([weight], step)
        assert weight.grad is not None
        gradient = weight.grad.float() if summed else weight.grad.clone()
        norm = optimizer.clip(1.0)
        factor = (1.0 / (norm + 1e-6)).clamp(max=1.0)
        optimizer.step()
        kernel.step_tensor(high, low, gradient, average, square, factor, step, optimizer.param_groups[0])
    state = optimizer.state[weight]
    torch.testing.assert_close(join(high, low), join(weight.detach(), state["remainder"]), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(average, state["exp_avg"], rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(square, state["exp_avg_sq"], rtol=1e-5, atol=1e-8)


def test_the_kernel_rounds_as_the_plain_form_does(kernel: ModuleType) -> None:
    master = patterns(signed(HIGHS), torch.tensor(LOWS))
    weight, remainder = torch.empty_like(master, dtype=torch.bfloat16), torch.empty_like(master, dtype=torch.int16)
    split_into(master, weight, remainder)
    high, low = weight.clone(), remainder.clone()
    gradient, average, square = (torch.zeros_like(master) for _ in range(3))
    kernel.step_tensor(high, low, gradient, average, square, torch.ones(()), 1, {**CONSTANTS, "lr": 0.0})
    assert torch.equal(high.view(torch.int16), weight.view(torch.int16))
    assert torch.equal(low, remainder)
