# rimap as a BIDS App: docker run --rm -v DATA:/data:ro -v OUT:/out rimap /data /out participant
# Built from the lock file; runs as nobody in particular (--user "$(id -u):$(id -g)" works as well), needs no network.
FROM python:3.11-slim

LABEL org.opencontainers.image.title="rimap" \
      org.opencontainers.image.description="T1 and T2 maps from a series of MR images" \
      org.opencontainers.image.licenses="Apache-2.0"

ENV PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

# The lock comes first: it changes seldom, and so does this layer. It has the extra "cluster", so that the same image can be a Dask worker.
COPY requirements-container.lock /tmp/requirements.lock
RUN pip install --no-deps --require-hashes -r /tmp/requirements.lock && rm /tmp/requirements.lock

COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN pip install --no-deps /src \
    && pip check \
    && rm -rf /src \
    && useradd --create-home --uid 1000 rimap

# Kernels are compiled here, so that the first run starts at once. On another kind of processor than that of the build, the first
# run compiles them again: in the home of the user or, if that is read-only, below TMPDIR (--work-dir).
RUN rimap --warm-up

USER rimap
WORKDIR /home/rimap
ENTRYPOINT ["rimap", "bids"]
CMD ["--help"]
