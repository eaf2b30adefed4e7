"""The block-wise log-softmax against the plain one: values, gradients, and how much it holds at once."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from labeling.records import UserError
from rlhf import logprobs
from rlhf.logprobs import selective_log_softmax

N, HIDDEN, VOCABULARY = 5, 4, 23
TOKENS = torch.tensor([0, 22, 7, 7, 8])  # both ends of the vocabulary, both sides of a block's edge, one twice


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 8 columns for N rows, the last of 7."""
    monkeypatch.setattr(logprobs, "BLOCK", 8 * N)


def world(bias: bool, scale: float = 1.0) -> tuple[Tensor, nn.Linear]:
    torch.manual_seed(0)
    head = nn.Linear(HIDDEN, VOCABULARY, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        head.weight.mul_(scale)
    return torch.randn(N, HIDDEN, dtype=torch.float64, requires_grad=True), head


def plain(states: Tensor, head: nn.Module, temperature: float) -> tuple[Tensor, Tensor]:
    log_pi = (head(states) / temperature).log_softmax(-1)
    return log_pi.gather(1, TOKENS[:, None])[:, 0], -(log_pi.exp() * log_pi).sum(-1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("scale", [1.0, 300.0])  # at 300 an exponential without its maximum would overflow
def test_values_are_those_of_the_plain_log_softmax(bias: bool, temperature: float, scale: float) -> None:
    states, head = world(bias, scale)
    with torch.no_grad():
        frozen = selective_log_softmax(states, head, TOKENS, temperature)
    learned = selective_log_softmax(states, head, TOKENS, temperature)
    for got in (frozen, learned):
        torch.testing.assert_close(got, plain(states, head, temperature))
    log_z = (head(states) / temperature).logsumexp(-1).detach()
    from_what_is_known = selective_log_softmax(
        states, head, TOKENS, temperature, known=(log_z, plain(states, head, temperature)[1].detach())
    )
    torch.testing.assert_close(from_what_is_known, plain(states, head, temperature))


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_pass_gradcheck(bias: bool) -> None:
    states, head = world(bias)

    def outputs(states: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        return logprobs._SelectiveLogSoftmax.apply(states, *parameters, *([] if bias else [None]), TOKENS, 0.7, None)

    assert torch.autograd.gradcheck(outputs, (states, *head.parameters()))


@pytest.mark.parametrize("loss", [lambda logp, entropy: (logp * torch.arange(N)).sum(), lambda _, entropy: entropy[1]])
def test_gradients_are_autograds(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    states, head = world(True)
    wanted = [states, *head.parameters()]
    mine = torch.autograd.grad(loss(*selective_log_softmax(states, head, TOKENS, 0.7, True)), wanted)
    theirs = torch.autograd.grad(loss(*plain(states, head, 0.7)), wanted)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("of_entropy", [False, True])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_a_frozen_head_gets_no_gradient_and_the_states_get_theirs(bias: bool, of_entropy: bool, scale: float) -> None:
    states, head = world(bias, scale)
    head.requires_grad_(False)
    g = torch.linspace(-1, 1, N, dtype=torch.float64)
    mine, theirs = (
        (g * logp).sum() + of_entropy * (g * entropy).sum()
        for logp, entropy in (
            selective_log_softmax(states, head, TOKENS, 0.7, of_entropy),
            plain(states, head, 0.7),
        )
    )
    torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(torch.autograd.grad(mine, states), torch.autograd.grad(theirs, states))
    assert head.weight.grad is None


def test_a_frozen_head_is_multiplied_twice_and_not_again_in_backward() -> None:
    states, head = world(False)
    head.requires_grad_(False)
    logp, _ = selective_log_softmax(states, head, TOKENS, 1.0)
    with _Largest() as seen:
        logp.sum().backward()
    assert seen.numbers == N * HIDDEN


def test_the_entropy_carries_a_gradient_only_when_asked() -> None:
    states, head = world(False)
    assert not selective_log_softmax(states, head, TOKENS, 1.0)[1].requires_grad
    assert selective_log_softmax(states, head, TOKENS, 1.0, True)[1].requires_grad


def test_half_precision_is_summed_in_float32() -> None:
    states, head = world(False)
    got = selective_log_softmax(states.bfloat16(), head.bfloat16(), TOKENS, 1.0)
    assert got[0].dtype == got[1].dtype == torch.float32
    torch.testing.assert_close(got[0], plain(states.bfloat16(), head, 1.0)[0].float(), atol=0.1, rtol=0)


class _Largest(TorchDispatchMode):
    """Remembers the most numbers that any result of an operation held, backward included."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, Tensor):
                self.numbers = max(self.numbers, t.numel())
        return out


def test_no_tensor_is_as_large_as_tokens_times_vocabulary() -> None:
    states, head = world(False)
    with _Largest() as seen:
        selective_log_softmax(states, head, TOKENS, 1.0)[0].sum().backward()
    assert seen.numbers == VOCABULARY * HIDDEN  # the head's gradient; blocks have 5·8 numbers, all logits 5·23
    with _Largest() as seen:
        plain(states, head, 1.0)
    assert seen.numbers == N * VOCABULARY


def test_an_adapted_head_is_refused() -> None:
    with pytest.raises(UserError, match="output head is a Sequential, not a plain linear map"):
        selective_log_softmax(torch.zeros(1, HIDDEN), nn.Sequential(world(False)[1]), TOKENS[:1], 1.0)
