"""Members: small networks that share most weights."""

import torch

from model.factory import architecture_of, create_model_variant
from model.network.config import ModelConfig
from model.network.members import Members

TASKS = ["brake_1s", "coast_1s"]


def test_members_give_different_answers_which_do_not_depend_on_the_scale_of_features() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(500, 3, generator=generator) * torch.tensor([1e-3, 1.0, 1e4]) + 7
    torch.manual_seed(0)
    members = Members(ModelConfig(members=4, members_dim=8, prediction_tasks=TASKS), 3).eval()
    members.measure(features)
    logits = members(features)
    assert logits.shape == (500, 4, 2) and torch.isfinite(logits).all()
    assert (logits.std(dim=1) > 0).all()
    members.measure(features * 100)
    assert torch.allclose(members(features * 100), logits, atol=1e-3)
    members.measure(features[:1])
    assert torch.isfinite(members(features[:1])).all()


def test_a_network_with_derived_inputs_returns_the_mean_probability_of_its_members() -> None:
    sizes = {"embedding_dim": 16, "hidden_dim": 16, "attention_num_heads": 2, "decoder_num_layers": 1, "members": 3}
    torch.manual_seed(0)
    model = create_model_variant(
        {**architecture_of("simple_concat_lstm"), **sizes, "dropout_prob": 0.0, "telemetry_changes": True}
    )
    windows = torch.rand(5, 20, 10), torch.zeros(5, 20, 1, 6), torch.zeros(5, 20, 1, dtype=torch.bool)
    each, mean = model.train()(*windows), model.eval()(*windows)
    for task, answers in each.items():
        assert torch.allclose(answers.sigmoid().mean(dim=1), mean[task].sigmoid(), atol=1e-5)
    assert model.derived is not None
    known = model(*windows, model.derived(*windows))
    assert all(torch.equal(known[task], mean[task]) for task in mean)
