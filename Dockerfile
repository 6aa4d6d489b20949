# One image for all Python services: API replica, aggregator, exporter, commands. Built from services.lock, whose hashes pip
# checks; at run time it needs no network but that of its servers, no root, and no writable root file system.
# PYTHON_DIGEST=@sha256:… pins the base beyond its tag.
ARG PYTHON_DIGEST=
FROM python:3.12.11-slim-bookworm${PYTHON_DIGEST} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/streamgauge
WORKDIR /build
COPY services.lock build.lock ./
RUN /opt/streamgauge/bin/pip install --require-hashes -r services.lock
# Building takes hatchling, which the image does not.
RUN python -m venv /opt/build && /opt/build/bin/pip install --require-hashes -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY contract contract
COPY producers producers
COPY database database
COPY optimizers optimizers
COPY aggregator aggregator
COPY exporter exporter
COPY streamgauge streamgauge
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/streamgauge/bin/pip install --no-deps /wheels/*.whl \
    && /opt/streamgauge/bin/python -m compileall -q /opt/streamgauge/lib \
    && /opt/streamgauge/bin/pip uninstall --yes pip

FROM python:3.12.11-slim-bookworm${PYTHON_DIGEST}
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin streamgauge
COPY --from=build /opt/streamgauge /opt/streamgauge
ENV PATH=/opt/streamgauge/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
CMD ["streamgauge", "--help"]
