"""Batches: padding changes nothing, and conversations that share a sequence do not see each other."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from finetune_operator.api.outcome import StageFailure
from finetune_operator.api.tokenization import Packing
from finetune_trainer.prepare.batches import Batch, EncodedBatch
from finetune_trainer.prepare.journal import Journal
from finetune_trainer.prepare.parts import tokens_hash, write_part
from finetune_trainer.prepare.rows import Place
from finetune_trainer.sequences import IGNORED
from finetune_trainer.store import TRAIN, RowStore, StoredRow
from finetune_trainer.train.data import TOKENS, Collator, SequenceDataset
from finetune_trainer.train.isolation import check_isolation

VOCABULARY, PAD = 64, 0


def row(length: int, seed: int, prompt: int = 3) -> StoredRow:
    ids = np.random.default_rng(seed).integers(1, VOCABULARY, length).astype(np.int32)
    labels = ids.copy()
    labels[:prompt] = IGNORED
    return StoredRow(ids, labels, file=0, number=seed)


ROWS = [row(9, 1), row(14, 2), row(6, 3), row(20, 4)]


@pytest.fixture(params=["sdpa", "eager"])
def model(request: pytest.FixtureRequest) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(vocab_size=VOCABULARY, num_key_value_heads=2, **shape, attn_implementation=request.param)
    model = Qwen2ForCausalLM(config)
    model.config.use_cache = False
    return model


def loss_and_gradients(model: Qwen2ForCausalLM, sequences: list[list[StoredRow]], packing: Packing) -> tuple[Any, Any]:
    batch = Collator(PAD, packing)(sequences)
    learnt = int((batch["labels"][:, 1:] != IGNORED).sum())
    batch.pop(TOKENS)
    model.zero_grad()
    loss = model(**batch, num_items_in_batch=learnt).loss
    loss.backward()
    return loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize(
    "packed",
    [[[0, 1, 2, 3]], [[0, 1], [2, 3]], [[3], [2, 0, 1]]],
    ids=["all in one", "two and two", "one and three"],
)
def test_packed_and_padded_batches_give_the_same_loss_and_gradients(
    model: Qwen2ForCausalLM, packed: list[list[int]]
) -> None:
    loss, gradients = loss_and_gradients(model, [[row] for row in ROWS], Packing.NONE)
    packed_loss, packed_gradients = loss_and_gradients(
        model, [[ROWS[i] for i in pack] for pack in packed], Packing.SEGMENTED
    )
    assert torch.allclose(loss, packed_loss, atol=1e-5, rtol=0)
    assert max((a - b).abs().max() for a, b in zip(gradients, packed_gradients, strict=True)) < 1e-5


def losses_of_second(model: Qwen2ForCausalLM, first: StoredRow, packing: Packing) -> torch.Tensor:
    batch = Collator(PAD, packing)([[first, ROWS[1]]])
    batch.pop(TOKENS)
    labels = batch.pop("labels")
    logits = model(**batch).logits[0, :-1]
    begin = len(first.input_ids)
    targets = labels[0, 1:][begin : begin + len(ROWS[1].input_ids) - 1]
    return torch.nn.functional.cross_entropy(
        logits[begin : begin + len(targets)], targets, ignore_index=IGNORED, reduction="none"
    ).detach()


def test_changing_one_conversation_of_a_sequence_leaves_the_others_loss_as_it_is(model: Qwen2ForCausalLM) -> None:
    same = losses_of_second(model, ROWS[0], Packing.SEGMENTED)
    assert torch.equal(same, losses_of_second(model, row(9, 99), Packing.SEGMENTED))
    # The same test finds the leak where conversations are packed plainly: it could fail.
    assert not torch.equal(
        losses_of_second(model, ROWS[0], Packing.PLAIN), losses_of_second(model, row(9, 99), Packing.PLAIN)
    )


def test_a_model_that_keeps_conversations_apart_may_be_packed(model: Qwen2ForCausalLM) -> None:
    check_isolation(model.train())
    assert model.training


def test_a_model_that_carries_state_along_the_sequence_is_refused_for_packing() -> None:
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=32, state_size=4, num_hidden_layers=2)
    with pytest.raises(StageFailure, match="MambaForCausalLM lets conversations that share a sequence see each other"):
        check_isolation(MambaForCausalLM(config))


def test_a_batch_is_padded_on_the_right_to_a_multiple_of_eight_and_padding_is_not_learnt() -> None:
    batch = Collator(PAD, Packing.NONE)([[ROWS[0]], [ROWS[2]]])
    assert batch["input_ids"].shape == (2, 16)
    assert batch["input_ids"][1, 6:].eq(PAD).all()
    assert batch["labels"][1, 6:].eq(IGNORED).all()
    assert batch["attention_mask"].sum(dim=1).tolist() == [9, 6]
    assert batch[TOKENS] == [9, 6]


def test_a_plainly_packed_batch_restarts_positions_and_sees_the_whole_sequence() -> None:
    batch = Collator(PAD, Packing.PLAIN)([[row(3, 1), row(2, 2)]])
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]


def test_positions_begin_anew_in_every_conversation() -> None:
    batch = Collator(PAD, Packing.SEGMENTED)([[row(3, 1), row(2, 2)]])
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 0, 0]]
    assert "attention_mask" not in batch


def test_the_first_token_of_a_conversation_is_not_predicted_from_another_one() -> None:
    rows = [row(4, 1, prompt=0), row(4, 2, prompt=0)]
    batch = Collator(PAD, Packing.SEGMENTED)([rows])
    assert batch["labels"][0, 4] == IGNORED
    assert int((Collator(PAD, Packing.NONE)([rows])["labels"] == IGNORED).sum()) == 0


def stored(folder: Path, rows: list[StoredRow], capacity: int | None) -> str:
    """A store of the rows; returns its hash."""
    batch = Batch(0, [Place("rows.jsonl", row.number) for row in rows], [b""] * len(rows))
    lengths = np.array([len(row.input_ids) for row in rows], dtype=np.int32)
    encoded = EncodedBatch(
        np.concatenate([row.input_ids for row in rows]),
        np.concatenate([row.labels for row in rows]),
        lengths,
        trained=lengths,
        hashes=np.arange(len(rows), dtype=np.uint64),
        truncated=0,
        notes=[],
    )
    with Journal(folder, "") as journal:
        journal.append(batch, encoded)
    write_part(folder / TRAIN, np.arange(len(rows)), lengths, capacity)
    return tokens_hash(folder)


def test_stored_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    first = stored(tmp_path / "a", ROWS, capacity=24)
    store = RowStore(tmp_path / "a" / TRAIN)
    assert (store.rows, store.sequences) == (4, 3)
    for index, written in enumerate(ROWS):
        found = store.row(index)
        assert np.array_equal(found.input_ids, written.input_ids)
        assert np.array_equal(found.labels, written.labels)
        assert (found.file, found.number) == (written.file, written.number)
    dataset = SequenceDataset(store)
    assert [[row.number for row in sequence] for sequence in dataset] == [[4], [2, 1], [3]]
    assert dataset.lengths == [20, 23, 6]
    assert [store.most_tokens(sequences) for sequences in (1, 2, 100)] == [23, 43, 49]
    assert stored(tmp_path / "b", ROWS, capacity=24) == first
    assert stored(tmp_path / "c", ROWS, capacity=None) != first


def test_a_loaders_process_maps_the_tokens_rather_than_get_a_copy(tmp_path: Path) -> None:
    stored(tmp_path / "a", [row(20_000, 1)], capacity=None)
    sent = pickle.dumps(SequenceDataset(RowStore(tmp_path / "a" / TRAIN)))
    assert len(sent) < 1000
    assert len(pickle.loads(sent)[0][0].input_ids) == 20_000
