"""``rlm.utils`` of `rlms`."""
