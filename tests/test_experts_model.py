"""The mixture: one inner product is the gated sum, and experts start as copies."""

import pytest
import torch

from experts.encoders import Bags
from experts.model import TEXT_WIDTH, CompactMixture
from experts.routers import route
from schemas.config import TrainConfig, build
from schemas.records import PLATFORMS

KINDS = ("platforms", "unified")


def test_the_fused_inner_product_is_the_gated_sum_of_cosines() -> None:
    torch.manual_seed(0)
    model = CompactMixture(12, TrainConfig(width=16)).eval()
    for parameter in model.parameters():  # experts and gate as if trained apart
        parameter.data += 0.1 * torch.randn_like(parameter)
    text, image = torch.randn(4, TEXT_WIDTH), torch.randn(5, model.image_trunk.width)
    fused = model.fused_text(text) @ model.fused_image(image).T
    gates = model.gates(text)
    torch.testing.assert_close(gates.sum(1), torch.ones(4))
    expected = torch.zeros(4, 5)
    for k in range(len(PLATFORMS)):
        expert = model.expert(k)
        cosine = torch.nn.functional.cosine_similarity(
            expert.text(text).unsqueeze(1), expert.image(image).unsqueeze(0), dim=2
        )
        expected += gates[:, k : k + 1] * cosine
    torch.testing.assert_close(fused, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("router", ["top1", "top2", "sparsemax", "uniform"])
def test_the_gate_follows_its_router(router: str) -> None:
    torch.manual_seed(0)
    model = CompactMixture(12, build(TrainConfig, {"width": 16, "router": router}))
    for parameter in model.gate.parameters():
        parameter.data += torch.randn_like(parameter)
    text = torch.randn(9, TEXT_WIDTH)
    gates = model.gates(text)
    torch.testing.assert_close(gates, route(router, model.gate(text)))
    assert model.fused_text(text).shape == (9, 48)


def test_a_unified_model_is_the_mixture_of_one_expert_three_times() -> None:
    torch.manual_seed(0)
    one = CompactMixture(12, TrainConfig(width=16, experts="unified", router="top1"))
    three = CompactMixture(12, TrainConfig(width=16, router="uniform"))
    three.expert(0).load_state_dict(one.expert(0).state_dict())
    three.share_first_expert()
    text, image = torch.randn(4, TEXT_WIDTH), torch.randn(5, one.image_trunk.width)
    assert one.fused_text(text).shape == (4, 16)
    torch.testing.assert_close(one.gates(text), three.gates(text))
    torch.testing.assert_close(
        one.fused_text(text) @ one.fused_image(image).T, three.fused_text(text) @ three.fused_image(image).T
    )


def test_an_untrained_mixture_scores_as_its_first_expert() -> None:
    torch.manual_seed(0)
    model = CompactMixture(12, TrainConfig(width=16)).eval()
    model.expert(0).text.projection.weight.data.normal_()
    model.share_first_expert()
    text, image = model.text_trunk(Bags.of([[1, 2], [3]])), torch.randn(5, model.image_trunk.width)
    fused = model.fused_text(text) @ model.fused_image(image).T
    torch.testing.assert_close(fused, model.expert(0).text(text) @ model.expert(0).image(image).T)


def test_a_mixture_starts_from_the_experts_of_another_or_from_their_mean() -> None:
    torch.manual_seed(0)
    three, one = (CompactMixture(12, build(TrainConfig, {"width": 16, "experts": kind})) for kind in KINDS)
    for parameter in (*three.parameters(), *one.parameters()):
        parameter.data += 0.1 * torch.randn_like(parameter)
    pairs = {kind: CompactMixture(12, build(TrainConfig, {"width": 16, "experts": kind})) for kind in KINDS}
    pairs["platforms"].start_from(three)
    for name, value in pairs["platforms"].state_dict().items():
        assert torch.equal(value, three.state_dict()[name])
    pairs["platforms"].start_from(one)
    pairs["unified"].start_from(three)
    for name, value in one.expert(0).state_dict().items():
        assert all(torch.equal(value, pairs["platforms"].expert(k).state_dict()[name]) for k in range(3))
        mean = sum(three.expert(k).state_dict()[name] for k in range(3)) / 3
        torch.testing.assert_close(pairs["unified"].expert(0).state_dict()[name], mean)
    assert torch.equal(pairs["unified"].text_trunk.embedding, three.text_trunk.embedding)
    with pytest.raises(RuntimeError):
        pairs["unified"].start_from(CompactMixture(13, TrainConfig(width=16)))
