# A device of a fleet, for amd64 and arm64 (Raspberry Pi, generic boards): trains on the CPU.
#
#   make wheel
#   docker buildx build --platform linux/arm64 -f deploy/device.Dockerfile -t sheaf-device .
#   docker run -d --name shop-1 --restart unless-stopped -v shop-1:/state -v /srv/images:/data:ro \
#       -v "$PWD/shop-1.kit":/kit:ro -v "$PWD/edge.toml":/edge.toml:ro --user "$(id -u)" sheaf-device
#
# The kit has mode 0600, so the container runs as its owner; /state must be writable for the same user.

FROM python:3.12-slim-bookworm AS build
COPY dist/*.whl /wheels/
# PyPI's torch needs CUDA's libraries of several GB. FLARE's requirements contain those of its servers and of a
# dashboard, so it is installed without them; the extra "device" has the rest.
RUN python -m venv /opt/sheaf \
    && /opt/sheaf/bin/pip install --no-cache-dir --no-compile "torch<2.15" \
        --index-url https://download.pytorch.org/whl/cpu \
    && /opt/sheaf/bin/pip install --no-cache-dir --no-compile "$(echo /wheels/*.whl)[device]" \
    && /opt/sheaf/bin/pip install --no-cache-dir --no-compile --no-deps nvflare==2.9.0 \
    && /opt/sheaf/bin/pip uninstall --yes pip

FROM python:3.12-slim-bookworm
RUN useradd --uid 1000 --create-home sheaf && install --directory --owner sheaf --mode 0777 /state
COPY --from=build /opt/sheaf /opt/sheaf
ENV PATH=/opt/sheaf/bin:$PATH HOME=/state SHEAF_STATE=/state PYTHONUNBUFFERED=1
USER 1000
WORKDIR /state
VOLUME /state
ENTRYPOINT ["sheaf", "edge", "join", "/kit", "--state", "/state", "--data", "/data", "--settings", "/edge.toml"]
