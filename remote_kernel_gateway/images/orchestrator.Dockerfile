# Where runs happen: the models' conversation, the key, the budget. JupyterLab with %rlm, or `jupyter rlm run`.
#
#   make extension
#   docker build --file remote_kernel_gateway/images/orchestrator.Dockerfile --tag rlm-orchestrator:0.1.0 .
#
# Writable paths, volumes all: /home/rlm (notebooks, settings, trajectories) and /tmp. Everything else may be
# read-only.
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY remote_kernel_gateway/images/requirements/build.txt remote_kernel_gateway/images/requirements/orchestrator.txt /src/requirements/
RUN python -m venv /opt/build && /opt/build/bin/python -m pip install --requirement /src/requirements/build.txt
RUN python -m venv /opt/rlm && /opt/rlm/bin/python -m pip install --requirement /src/requirements/orchestrator.txt
COPY pyproject.toml hatch_build.py README.md LICENSE /src/
COPY rlm_kernel /src/rlm_kernel
COPY extension/install.json /src/extension/
COPY extension/labextension /src/extension/labextension
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /src/wheels /src \
  && /opt/rlm/bin/python -m pip install --no-deps --no-index --find-links /src/wheels rlm-kernel \
  && /opt/rlm/bin/python -m pip check

FROM python:3.11.14-slim-bookworm
# Debian keeps one version of a package; the base image's tag says of which release.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --create-home rlm
COPY --from=build /opt/rlm /opt/rlm
ENV PATH=/opt/rlm/bin:$PATH HOME=/home/rlm PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /home/rlm
VOLUME ["/home/rlm", "/tmp"]
EXPOSE 8888
ENTRYPOINT ["tini", "--"]
CMD ["jupyter", "lab", "--no-browser", "--ip=0.0.0.0", "--port=8888"]
