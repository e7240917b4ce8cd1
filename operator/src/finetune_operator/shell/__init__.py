"""The only code that talks to Kubernetes: watch, queue, read, plan, write. Also the progress endpoint and the metrics."""
