"""Names of the figures in a progress report: those of the Hugging Face Trainer's Kubeflow callback, where it has one."""

from __future__ import annotations

CURRENT_STEP = "current_step"
TOTAL_STEPS = "total_steps"
LOSS = "loss"
EVAL_LOSS = "eval_loss"
LEARNING_RATE = "learning_rate"
EPOCH = "epoch"
TOKENS_PER_SECOND = "tokens_per_second"
TFLOPS_PER_SECOND = "tflops_per_second"
SHARE_OF_LIMIT = "share_of_limit"
DATA_WAIT_SHARE = "data_wait_share"
