"""From YAML streams to checked FineTuneJobs, with errors in plain words."""
