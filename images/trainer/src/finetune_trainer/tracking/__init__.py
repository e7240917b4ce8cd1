"""Experiment trackers: each in a process of its own that reads the trainer's log and never touches the training."""
