"""``rlm.core`` of `rlms`."""
