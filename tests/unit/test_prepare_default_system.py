"""The job's own system prompt stands before conversations that have none, in training and in the saved template."""

from pathlib import Path

import pytest

from finetune_operator.api.run import RunConfig
from finetune_trainer.prepare.conversation import Conversation, Role, Turn
from finetune_trainer.prepare.job_template import encoder_of, set_up_tokenizer, template_of
from tiny_models import byte_tokenizer
from trainer_runs import make_run

PROMPT = 'Be "brief".\n你好'
TURNS = (Turn(Role.USER, "hi"), Turn(Role.ASSISTANT, "hello"))


def job(tmp_path: Path, **tokenization: str) -> RunConfig:
    return make_run(tmp_path, tmp_path, tmp_path / "rows.jsonl", tokenization={"defaultSystem": PROMPT, **tokenization})


@pytest.mark.parametrize("tokenization", [{}, {"template": "qwen"}, {"compatibility": "LLaMAFactory"}], ids=str)
def test_a_conversation_without_a_system_message_gets_the_jobs(tmp_path: Path, tokenization: dict[str, str]) -> None:
    run, tokenizer = job(tmp_path, **tokenization), byte_tokenizer()
    set_up_tokenizer(tokenizer, run)
    encoder = encoder_of(run, tokenizer, template_of(run, tokenizer))
    without, with_its_own = encoder.encode([Conversation(TURNS), Conversation(TURNS, system="Mine.")])
    texts = [tokenizer.decode([*turns[0][0], *turns[0][1]]) for turns in (without, with_its_own)]  # type: ignore[union-attr]
    question = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    asked = [f"<|im_start|>system\n{prompt}<|im_end|>\n{question}" for prompt in (PROMPT, "Mine.")]
    assert texts == [f"{text}hello<|im_end|>\n" for text in asked]
    served = [
        tokenizer.apply_chat_template(
            [*system, {"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
        )
        for system in ([], [{"role": "system", "content": "Mine."}])
    ]
    assert served == asked
