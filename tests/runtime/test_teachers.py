"""The teachers of a distillation: FedDF's mean logits, and those of experts side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rig import dataset, drawn, network, theta
from torch import Tensor
from torch.nn import functional as F

from sheaf.core.cut import Cut
from sheaf.core.types import Params
from sheaf.merges.average import Contribution, average
from sheaf.runtime.teachers import macs, mean_logits
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes.by_class import ByClass
from sheaf.training.losses.distillation import Distillation
from sheaf.training.preparation import Preparation
from sheaf.training.step import LossContext

NETWORK = network()
PREPARE = Preparation((0.5,), (0.25,), torch.device("cpu"))
SAMPLES = dataset().train.select(torch.arange(10))


def logits(params: Params) -> Tensor:
    """Return the whole model's logits, computed by torch alone."""
    model = network().model.eval()
    model.load_state_dict(dict(params))
    with torch.no_grad():
        return model((SAMPLES.inputs[SAMPLES.positions].float() / 255 - 0.5) / 0.25)


def taught(*teachers: tuple[Cut | None, Params]) -> Tensor:
    return mean_logits(NETWORK, iter(teachers), SAMPLES, PREPARE, 3)


def test_the_loss_is_that_of_feddf() -> None:
    """KL(softmax of the mean of the teachers' logits || softmax of the student's logits)."""
    models = [drawn(seed) for seed in (1, 2, 3)]
    student = logits(theta())
    constants = {"teacher": taught(*((None, model) for model in models))}
    loss = Distillation()(student, torch.arange(10), LossContext(constants=constants))
    p = (sum(logits(model) for model in models) / 3).softmax(1)
    expected = (p * (p.log() - student.log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(
        Distillation()(student, torch.arange(10), LossContext(constants=constants)), student
    )
    torch.testing.assert_close(gradient, (student.detach().softmax(1) - p) / 10, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("other", [False, True])
def test_experts_without_a_common_class_teach_the_logits_of_the_bound_model(other: bool) -> None:
    needs = [SiteNeeds("left", (0, 1)), SiteNeeds("right", (2,))]
    cuts = [replace(cut, other=other) for cut in ByClass()(NETWORK.structure, needs, 0).values()]
    experts: list[dict[str, Tensor]] = []
    for number, cut in enumerate(cuts):
        taken = NETWORK.submodel(cut).take(drawn(number))
        for name in [name for name in taken if other and name.startswith("3.")]:
            taken[name][-1] = 0.3 + number  # the "other" row
        experts.append(taken)
    parts = [
        Contribution(expert, 1.0, NETWORK.submodel(cut)) for cut, expert in zip(cuts, experts, strict=True)
    ]
    bound = average(theta(), parts, unheld="zero")
    torch.testing.assert_close(taught(*zip(cuts, experts, strict=True)), logits(bound), rtol=1e-4, atol=1e-5)
    assert macs(NETWORK, cuts, 7) == 7 * (16 * 8 + 5 * 2 + 3 * 1), "layers of 5 + 3 channels, 2 + 1 classes"


def test_a_class_of_two_experts_gets_their_mean_and_one_of_none_gets_no_probability() -> None:
    cuts = [NETWORK.structure.cut(classes=classes) for classes in ((0, 1), (1,))]
    experts = [NETWORK.submodel(cut).take(drawn(number)) for number, cut in enumerate(cuts)]
    found = taught(*zip(cuts, experts, strict=True))
    first, second = logits(drawn(0)), logits(drawn(1))
    torch.testing.assert_close(found[:, 0], first[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[:, 1], (first[:, 1] + second[:, 1]) / 2, rtol=1e-4, atol=1e-5)
    loss = Distillation(temperature=0.5)(
        torch.zeros(10, 3), torch.arange(10), LossContext(constants={"teacher": found})
    )
    p = F.softmax(found[:, :2] / 0.5, 1)
    torch.testing.assert_close(loss, 0.25 * (p * (p.log() + torch.log(torch.tensor(3.0)))).sum(1).mean())
