"""The process node: one Kubernetes Node whose pods are local processes.

Each pod has a network namespace of its own; each container a mount, PID, UTS and IPC namespace over the
host's root file system. It is for tests and demonstrations only: see `## The process node` of
`devcluster/README.md` for what it is not.
"""
