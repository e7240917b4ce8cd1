"""The trainer image: the prepare and train stages of a FineTuneJob."""
