"""The kernel `Python (RLM)`: IPython with `%rlm` ready, and free to hear the panel while a question waits."""
