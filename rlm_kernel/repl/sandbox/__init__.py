"""The native sandbox: an ordinary ipykernel inside bubblewrap, for ``repl="sandbox"`` and any Jupyter client.

`limits` says how much it may use, `machine` what this machine permits, `layout` what it sees, `cgroup` holds
limits for the whole tree of its processes, `provisioner` starts it, `transport` is the backend. What runs
inside, before the kernel, is `rlm_kernel.kernels.inside`.
"""
