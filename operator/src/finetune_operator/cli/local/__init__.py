"""A job without a cluster: its folder, what it reads, and its stages as child processes."""
