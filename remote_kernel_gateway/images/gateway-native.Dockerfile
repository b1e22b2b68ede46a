# A Kernel Gateway with native kernels: ordinary ipykernels, each in bubblewrap (rlm-sandbox).
#
#   docker build --file remote_kernel_gateway/images/gateway-native.Dockerfile --tag rlm-gateway-native:0.1.0 .
#
# Writable paths, volumes all: /home/rlm (Jupyter's runtime files) and /tmp. Everything else may be read-only.
# bubblewrap makes user namespaces, which the default seccomp profile of most container runtimes refuses;
# docs/security.md says what to allow. Where it is refused no kernel starts: there is no fallback without it.
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY remote_kernel_gateway/images/requirements/build.txt remote_kernel_gateway/images/requirements/gateway.txt /src/requirements/
RUN python -m venv /opt/build && /opt/build/bin/python -m pip install --requirement /src/requirements/build.txt
RUN python -m venv /opt/rlm && /opt/rlm/bin/python -m pip install --requirement /src/requirements/gateway.txt
COPY pyproject.toml hatch_build.py README.md LICENSE /src/
COPY rlm_kernel /src/rlm_kernel
# rlm-kernel comes without its dependencies: a gateway asks no model.
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /src/wheels /src \
  && /opt/rlm/bin/python -m pip install --no-deps --no-index --find-links /src/wheels rlm-kernel \
  && /opt/rlm/bin/jupyter-rlm kernelspec install rlm-sandbox --sys-prefix

FROM python:3.11.14-slim-bookworm
# Debian keeps one version of a package; the base image's tag says of which release.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends bubblewrap tini && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --create-home rlm
COPY --from=build /opt/rlm /opt/rlm
COPY remote_kernel_gateway/rlm_gateway /opt/rlm/lib/python3.11/site-packages/rlm_gateway
COPY remote_kernel_gateway/config/gateway_config.py /etc/rlm-gateway/
ENV PATH=/opt/rlm/bin:$PATH HOME=/home/rlm PYTHONDONTWRITEBYTECODE=1 RLM_GATEWAY_KERNELS=rlm-sandbox
USER 10001:10001
WORKDIR /home/rlm
VOLUME ["/home/rlm", "/tmp"]
EXPOSE 8888
ENTRYPOINT ["tini", "--"]
CMD ["jupyter", "kernelgateway", "--config=/etc/rlm-gateway/gateway_config.py"]
