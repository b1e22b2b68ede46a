"""The processes of kernels that this package starts: how they are confined, guarded and forked."""
