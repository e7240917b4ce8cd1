"""The FineTuneJob API and the contract between the operator and the images. Imports pydantic only."""
