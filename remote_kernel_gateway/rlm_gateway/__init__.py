"""Several orchestrators on one gateway, who know nothing of each other, and an account of what they executed.

For Kernel Gateway 3.0 and Jupyter Server from 2.12 on; Enterprise Gateway, on Jupyter Server 1, has no place
for it. The folder that holds this package must be on the server's ``PYTHONPATH``. For a Kernel Gateway, its
configuration file says::

    c.KernelGatewayApp.identity_provider_class = "rlm_gateway.for_kernel_gateway.TenantIdentityProvider"
    c.KernelGatewayApp.kernel_manager_class = "rlm_gateway.for_kernel_gateway.TenantKernelManager"
    c.KernelGatewayApp.kernel_websocket_connection_class = "rlm_gateway.audit.AuditedConnection"
    c.KernelGatewayApp.auth_token = ""   # not one for all

and for a Jupyter Server the first three, by ``ServerApp`` and ``rlm_gateway.for_jupyter_server``; for both::

    c.TenantIdentityProvider.tenants_file = "/etc/rlm-gateway/tenants.json"
    c.TenantKernelManager.kernels_per_tenant = 8
    c.TenantKernelManager.kernel_names = ["rlm-pyodide", "rlm-sandbox"]   # the default
    c.Audit.file = "/var/log/rlm-gateway/audit.jsonl"                     # default: standard output

``python -m rlm_gateway add NAME --file tenants.json`` makes a tenant and prints its token, which is kept
nowhere; the file has its SHA-256. A file that changes is read again. `AuditedConnection` alone serves a
gateway with one token, too.

What it does not do: kernels of one gateway share a machine and a user. Code in a native kernel (``python3``)
can read the connection files, and the memory, of the other kernels and of the server: it is everybody's. That
is why tenants may start none but those that can't, unless ``kernel_names`` says otherwise; native kernels for
several tenants need a gateway, or an Enterprise Gateway's pod, each.
"""
