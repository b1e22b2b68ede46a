"""Models: the protocol, and the endpoints, scripts and recordings that implement it."""
