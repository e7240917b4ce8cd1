"""The trainer image: the prepare and train stages of a FineTuneJob."""

import time

BEGAN = time.monotonic()
"""When this process began, by the clock that all processes of a machine share."""
