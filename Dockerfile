# Both programs, `dra-kubelet-plugin` and `dra`, on a small Python. Everything is pinned by hash in requirements.txt.
FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/dra-driver
COPY requirements.txt requirements-build.txt ./
RUN /opt/dra-driver/bin/pip install --no-cache-dir --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY deviceclasses ./deviceclasses
COPY dra_driver ./dra_driver
COPY kubelet_plugin ./kubelet_plugin
# The wheel is built with the pinned backend, in an environment that stays behind in this stage.
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement requirements-build.txt \
 && /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/dra-driver/bin/pip install --no-cache-dir --no-deps /dist/*.whl

FROM python:3.11-slim
COPY --from=build /opt/dra-driver /opt/dra-driver
ENV PATH=/opt/dra-driver/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# Root: the plugin makes MIG instances and writes into the kubelet's folders. The chart gives the rest of its rights.
CMD ["dra-kubelet-plugin", "--help"]
