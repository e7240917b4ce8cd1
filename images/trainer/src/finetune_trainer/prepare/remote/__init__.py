"""Models and datasets that are downloaded: hubs and object stores, the cache that jobs share, and what a run holds on to."""
