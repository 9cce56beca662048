# docker build --tag vitreous .
# docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" vitreous train photos
#
# `--user` makes the files of the run yours; without it, the user has the number 1000, and may not write into your folder.
# `--build-arg EXTRAS=serve,export` installs optional parts. `--build-arg PIP_EXTRA_INDEX_URL=ADDRESS` adds a place where
# pip looks for packages, e.g. for a build of torch for CPUs, which is smaller. With `docker run --gpus all` the GPUs of
# the machine are used; `--shm-size 8g` helps several processes.
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
ARG PIP_EXTRA_INDEX_URL
ARG EXTRAS=fast-jpeg,hub
RUN --mount=from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(ls /wheels/*.whl)[${EXTRAS}]"
ENV HOME=/tmp MPLCONFIGDIR=/tmp VITREOUS_CACHE=/var/tmp/vitreous PYTHONDONTWRITEBYTECODE=1
RUN install --directory --mode 1777 /work
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["vitreous"]
