"""transformers' `generate` on serve.py's model and questions; started by it."""

from __future__ import annotations

import json
import sys
from typing import Any

from serve import figures


def main() -> None:
    """Answer greedily, several questions as one padded batch; print one RESULT line."""
    asked = json.loads(sys.argv[1])
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(asked["model"], padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(asked["model"], dtype="auto").to(asked["device"]).eval()

    def answer(questions: list[str], tokens: int) -> int:
        chats = [[{"role": "user", "content": question}] for question in questions]
        prompts: Any = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        ).to(asked["device"])
        with torch.inference_mode():
            made = model.generate(**prompts, max_new_tokens=tokens, do_sample=False)[:, prompts["input_ids"].shape[1] :]
        return int((made != tokenizer.pad_token_id).sum())

    print("RESULT " + json.dumps(figures(answer, asked["tokens"], asked["repetitions"])), flush=True)


if __name__ == "__main__":
    main()
