"""What a Kernel Gateway (or Jupyter Server) is told that runs kernels for rlm-kernel, in every deployment.

It needs `rlm_gateway` on the server's path, for the account of what is executed and for tenants. What differs
between deployments comes from the environment; the gateway's own variables work as ever: KG_IP, KG_PORT,
KG_CERTFILE and KG_KEYFILE, KG_MAX_KERNELS.

    RLM_GATEWAY_TOKEN_FILE    a file with the token; KG_AUTH_TOKEN or JUPYTER_TOKEN holds it otherwise
    RLM_GATEWAY_TENANTS_FILE  a file of tenants, see `rlm_gateway`; where it is there, the token opens nothing
    RLM_GATEWAY_KERNELS       the kernelspecs that may be started, by commas; the first is the default
    RLM_GATEWAY_CULL_SECONDS  idle time after which a kernel that nobody is connected to ends (default 900)
    RLM_GATEWAY_AUDIT_FILE    where the account goes, a line an execution; not set: standard output
"""

import os
from pathlib import Path

c = get_config()  # noqa: F821  Jupyter's loader has it

# Out of the environment: a kernel that is started without one of its own inherits the server's.
given = [os.environ.pop(name, "") for name in ("KG_AUTH_TOKEN", "JUPYTER_TOKEN")]
token_file = os.environ.get("RLM_GATEWAY_TOKEN_FILE")
tenants_file = os.environ.get("RLM_GATEWAY_TENANTS_FILE", "")
names = [name for name in os.environ.get("RLM_GATEWAY_KERNELS", "").split(",") if name]
if not names:
    raise SystemExit("no kernels: set RLM_GATEWAY_KERNELS to the names of those that may be started")

if tenants_file and Path(tenants_file).exists():
    token = ""
    c.KernelGatewayApp.identity_provider_class = "rlm_gateway.for_kernel_gateway.TenantIdentityProvider"
    c.KernelGatewayApp.kernel_manager_class = "rlm_gateway.for_kernel_gateway.TenantKernelManager"
    c.ServerApp.identity_provider_class = "rlm_gateway.for_jupyter_server.TenantIdentityProvider"
    c.ServerApp.kernel_manager_class = "rlm_gateway.for_jupyter_server.TenantKernelManager"
    c.TenantIdentityProvider.tenants_file = tenants_file
    c.TenantKernelManager.kernel_names = names
else:
    token = next(filter(None, given), "")
    if token_file:
        token = Path(token_file).read_text(encoding="ascii").strip()
    if not token:
        raise SystemExit("no token: set RLM_GATEWAY_TOKEN_FILE; without one anybody could run code here")
    c.IdentityProvider.token = token
c.KernelGatewayApp.auth_token = token

c.KernelGatewayApp.kernel_websocket_connection_class = "rlm_gateway.audit.AuditedConnection"
c.ServerApp.kernel_websocket_connection_class = "rlm_gateway.audit.AuditedConnection"
c.Audit.file = os.environ.get("RLM_GATEWAY_AUDIT_FILE", "")

# Which kernels there are. What was installed for other purposes stays out, the server's own Python above all:
# its kernels could read the token in the server's memory.
c.KernelSpecManager.allowed_kernelspecs = set(names)
c.KernelSpecManager.ensure_native_kernel = False
c.KernelGatewayApp.default_kernel_name = names[0]
c.MultiKernelManager.default_kernel_name = names[0]

# A run ends its kernels; this ends those of an orchestrator that is gone. A kernel at work, or with somebody
# connected to it, is in use.
c.MappingKernelManager.cull_idle_timeout = int(os.environ.get("RLM_GATEWAY_CULL_SECONDS", "900"))
c.MappingKernelManager.cull_interval = 30
c.MappingKernelManager.cull_busy = False
c.MappingKernelManager.cull_connected = False
# A kernel that finds its port taken is given another one, also where so many start that it finds out late.
c.KernelRestarter.stable_start_time = 30.0
# Kept for an orchestrator that connects again.
c.MappingKernelManager.buffer_offline_messages = True

# The guest cuts what a cell prints to 20,000 characters a stream; these bound a kernel that has no guest any
# more, and stay out of the way of calls from many threads, which travel as messages of the same channel.
c.ZMQChannelsWebsocketConnection.limit_rate = True
c.ZMQChannelsWebsocketConnection.iopub_msg_rate_limit = 3000
c.ZMQChannelsWebsocketConnection.iopub_data_rate_limit = 4_000_000
c.ZMQChannelsWebsocketConnection.rate_limit_window = 3

# A break of the connection is noticed within half a minute. Messages may have 10 MiB, the server's own bound:
# contexts come in pieces of 4 MiB.
c.KernelGatewayApp.ws_ping_interval = 15
# Kernels inherit nothing of the server's environment but this. HOME, as a uid that a cluster chose has none
# in /etc/passwd.
c.KernelGatewayApp.env_process_whitelist = ["HOME", "LANG", "LC_ALL", "TZ"]
# Nobody asks a gateway which kernels others have.
c.JupyterWebsocketPersonality.list_kernels = False
c.KernelGatewayApp.port_retries = 0
c.ServerApp.port_retries = 0
c.ServerApp.terminals_enabled = False
