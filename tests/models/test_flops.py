"""Multiply-adds compared with counts by hand."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from sheaf.models import flops
from sheaf.models.flops import macs_per_example, train_macs_per_example

SHAPE = (3, 8, 8)


@pytest.fixture(autouse=True, params=["cpu", "meta"])
def counted_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Count all networks both ways: on the CPU and on the meta device."""
    if request.param == "meta":
        monkeypatch.setattr(flops, "FEW_PARAMETERS", 0)
    return str(request.param)


CONV = 8 * 8 * 3 * 9 * 6  # 8x8 positions, 3x3 window over 3 channels, 6 channels out
DEPTHWISE = 4 * 4 * 9 * 6  # stride 2; each filter has one channel
LINEAR = 6 * 4 * 4 * 10


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


def test_the_forward_pass():
    assert macs_per_example(network(), SHAPE) == CONV + DEPTHWISE + LINEAR


def test_training_skips_the_gradient_of_the_inputs():
    assert train_macs_per_example(network(), SHAPE) == 2 * CONV + 3 * DEPTHWISE + 3 * LINEAR


def test_frozen_parameters_cost_no_weight_gradient():
    model = network()
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)
    assert train_macs_per_example(model, SHAPE) == CONV + 2 * DEPTHWISE + 3 * LINEAR
    model.requires_grad_(False)
    assert train_macs_per_example(model, SHAPE) == CONV + DEPTHWISE + LINEAR


def test_transposed_and_grouped_convolutions():
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), nn.Flatten())
    model.append(nn.Linear(6 * 36, 1))
    up = 9 * 4 * 3 * 4  # 3x3 positions of 4 channels, each to 3 channels of a 2x2 window
    assert macs_per_example(model, (4, 3, 3)) == up + 216
    assert train_macs_per_example(model, (4, 3, 3)) == 2 * up + 3 * 216


def test_the_model_is_not_modified():
    model = network().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train_macs_per_example(model, SHAPE)
    assert not model.training
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_skeleton_costs_the_same():
    assert train_macs_per_example(network().to("meta"), SHAPE) == train_macs_per_example(network(), SHAPE)


def test_batch_normalisation_over_a_single_position():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4))
    assert train_macs_per_example(model, SHAPE) == 2 * 192 * 4


class Scaled(nn.Module):
    """Has a tensor that is neither a parameter nor a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.full((1,), 2.0)
        self.drop = nn.Dropout()
        self.head = nn.Linear(192, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(x.flatten(1) * self.scale))


@pytest.mark.parametrize(("count", "times"), [(macs_per_example, 1), (train_macs_per_example, 2)])
def test_models_that_cannot_run_on_meta(count, times):
    model, before = Scaled(), torch.random.get_rng_state()
    assert count(model, SHAPE) == times * 192 * 4
    assert torch.equal(torch.random.get_rng_state(), before)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(2)[..., :8]
        return self.attention(x, x, x)[0].mean(1)


class Checkpointed(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(super().forward, x.flatten(1), use_reentrant=False)


class WithoutGradient(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            scale = super().forward(x.flatten(1)).mean()
        return torch.einsum("bi,oi->bo", x.flatten(1), self.weight) * float(scale > 0)


@pytest.mark.parametrize(
    "model",
    [Attention(), Checkpointed(192, 5), WithoutGradient(192, 5)],
    ids=lambda model: type(model).__name__,
)
def test_other_layers_cost_what_torch_counts(model: nn.Module) -> None:
    with FlopCounterMode(display=False) as counter:
        output = model(torch.zeros(2, *SHAPE))
        forward = counter.get_total_flops()
        output.sum().backward()
    assert forward > 0
    assert macs_per_example(model, SHAPE) == forward // 4
    assert train_macs_per_example(model, SHAPE) == counter.get_total_flops() // 4


class Recurrent(nn.LSTM):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(2))[0][:, -1]


def test_a_recurrent_layer_costs_its_matrix_products_at_each_step() -> None:
    assert macs_per_example(Recurrent(64, 5, batch_first=True), SHAPE) == 3 * 4 * 5 * (64 + 5)


@pytest.mark.parametrize("side", [8, 128])
def test_only_a_small_network_on_small_inputs_runs_on_the_cpu(side: int, counted_by: str) -> None:
    devices = []

    class Spy(nn.Flatten):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            devices.append(x.device.type)
            return super().forward(x)

    macs_per_example(nn.Sequential(Spy(), nn.Linear(3 * side * side, 2)), (3, side, side))
    assert devices == ["cpu" if counted_by == "cpu" and side == 8 else "meta"]
