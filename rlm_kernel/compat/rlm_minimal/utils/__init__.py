"""``rlm.utils`` of rlm-minimal."""
