"""Train stage: from prepared tokens to an adapter or a tuned model."""
