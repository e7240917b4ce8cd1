"""From LLaMA-Factory's YAML and dataset_info.json to FineTuneJob manifests."""
