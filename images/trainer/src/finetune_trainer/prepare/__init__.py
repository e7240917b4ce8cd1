"""Prepare stage: the base model, every row checked, tokens on the volume. Needs no GPU."""
