"""Quantizers that read the optimizer's second moments. Oracles: the steps written out by hand, what an evaluation saw
of the weights that are kept, and the bytes of an undisturbed run."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import save
from tiny_training import SCHEDULE, TinyModel, cross_entropy, rising_and_falling, tiny_dataset, train_tiny
from torch import Tensor, nn

from bitpress.encoder.layers import Linear
from bitpress.quantize import LossAwareTernaryQuantizer
from bitpress.train import Batch, collate, running_stage
from bitpress.train.batching import Plan
from bitpress.train.optimizer import FusedAdam
from bitpress.train.schedule import derive_seed, learning_rate_at


class TernaryModel(TinyModel):
    """With a loss-aware ternary matrix before its head."""

    def __init__(self, method: str = "lat") -> None:
        super().__init__()
        self.mixer = Linear(6, 6)
        nn.init.normal_(self.mixer.weight, std=0.3, generator=torch.Generator().manual_seed(8))
        nn.init.zeros_(self.mixer.bias)
        self.mixer.weight_quantizer = LossAwareTernaryQuantizer(6, "matrix", method)

    @property
    def quantizer(self) -> LossAwareTernaryQuantizer:
        found = self.mixer.weight_quantizer
        assert isinstance(found, LossAwareTernaryQuantizer)
        return found

    def forward(self, batch: Batch) -> Tensor:
        mask = batch.attention_mask[..., None]
        hidden = (self.table(batch.input_ids) * mask).sum(1) / mask.sum(1)
        return self.head(self.dropout(self.norm(self.mixer(hidden))))


def codes(model: TernaryModel) -> tuple[bytes, bytes]:
    """What ``encode`` gives, to the bit."""
    found, scale = model.quantizer.encode(model.mixer.weight)
    return found.numpy().tobytes(), scale.numpy().tobytes()


@pytest.mark.parametrize("method", ["lat", "lat-exact"])
@pytest.mark.parametrize("optimizer", ["adamw", "bertadam"])
def test_every_step_reads_the_moments_that_the_step_before_left(tmp_path: Path, method: str, optimizer: str) -> None:
    schedule = SCHEDULE.__class__(**{**vars(SCHEDULE), "optimizer": optimizer, "keep": "last"})
    _, model = train_tiny(tmp_path, model=TernaryModel(method), schedule=schedule)
    data, plan, expected = tiny_dataset(), Plan(tiny_dataset().lengths, schedule, "tiny"), TernaryModel(method)
    by_hand = FusedAdam(expected.named_parameters(), schedule)
    for step in range(plan.total):
        state = by_hand.state.get(expected.mixer.weight)
        expected.quantizer.second_moment = state["exp_avg_sq"].clone() if state else None
        batches = [collate(data, indices) for indices in plan.micro_batches(step)]
        for number, batch in enumerate(batches):
            torch.manual_seed(derive_seed(schedule.seed, "tiny", step, number))
            loss = cross_entropy(expected, batch)[0] * (len(batch) / sum(map(len, batches)))
            loss.backward()
        by_hand.set_learning_rate(learning_rate_at(schedule, step, plan.total))
        by_hand.step()
        by_hand.zero_grad()
    expected.quantizer.second_moment = by_hand.state[expected.mixer.weight]["exp_avg_sq"]
    expected.quantizer.settle(expected.mixer.weight)
    for (name, own), theirs in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(own, theirs), name
    assert float(model.quantizer.scale) > 0


def test_the_best_weights_keep_the_codes_that_their_evaluation_saw(tmp_path: Path) -> None:
    """Not those that the last step's moments would give them."""
    seen: list[tuple[bytes, bytes]] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, TernaryModel)
        seen.append(codes(model))
        return rising_and_falling(model)

    result, model = train_tiny(tmp_path, model=TernaryModel(), evaluate=evaluate)
    assert isinstance(model, TernaryModel)
    assert 3 < result.best_step < result.steps
    best = result.best_step // 3 - 1
    assert codes(model) == seen[best]
    assert seen[best] != seen[-1]
    assert model.quantizer.second_moment is None
    # Called again it only loads the result.
    _, again = train_tiny(tmp_path, model=TernaryModel())
    assert isinstance(again, TernaryModel)
    assert codes(again) == seen[best]


def test_interrupted_and_resumed_it_ends_in_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def weights(model: nn.Module) -> bytes:
        return save({name: tensor.clone() for name, tensor in model.state_dict().items()})

    calm = train_tiny(tmp_path / "calm", model=TernaryModel())[1]
    train_step = running_stage.RunningStage._train_step

    def stop(stage: running_stage.RunningStage) -> None:
        if stage.step == 5 and stage.resumed_from is None:
            raise KeyboardInterrupt
        train_step(stage)

    monkeypatch.setattr(running_stage, "CHECKPOINT_SHARE", 1e9)
    monkeypatch.setattr(running_stage.RunningStage, "_train_step", stop)
    stopped = TernaryModel()
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path / "stopped", model=stopped)
    assert stopped.quantizer.second_moment is None
    result, resumed = train_tiny(tmp_path / "stopped", model=TernaryModel())
    assert result.resumed_from == 5
    assert weights(resumed) == weights(calm)
