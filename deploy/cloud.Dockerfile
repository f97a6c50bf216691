# The cloud of a fleet: its server, runs, reports and page.
#
#   make wheel
#   docker build -f deploy/cloud.Dockerfile -t sheaf-cloud .
#   docker run --rm -v fleet:/srv/sheaf sheaf-cloud cloud init fleet --host cloud.example.org --edges shop-1,shop-2
#   docker run -d --name cloud --restart unless-stopped -p 8002:8002 -v fleet:/srv/sheaf sheaf-cloud
#   docker exec cloud sheaf cloud run ecavg-digits --set method.share.fraction=0.05
#
# To train on a GPU, remove --index-url, and add --gpus all to docker run.

FROM python:3.12-slim-bookworm AS build
COPY dist/*.whl /wheels/
RUN python -m venv /opt/sheaf \
    && /opt/sheaf/bin/pip install --no-cache-dir --no-compile "torch<2.15" \
        --index-url https://download.pytorch.org/whl/cpu \
    && /opt/sheaf/bin/pip install --no-cache-dir --no-compile "$(echo /wheels/*.whl)[cloud]" \
    && /opt/sheaf/bin/pip uninstall --yes pip

FROM python:3.12-slim-bookworm
RUN useradd --uid 1000 --create-home sheaf && install --directory --owner sheaf /srv/sheaf
COPY --from=build /opt/sheaf /opt/sheaf
ENV PATH=/opt/sheaf/bin:$PATH PYTHONUNBUFFERED=1
USER 1000
WORKDIR /srv/sheaf
VOLUME /srv/sheaf
EXPOSE 8002
ENTRYPOINT ["sheaf"]
CMD ["cloud", "start", "fleet"]
