# evbiodist on the command line, without the viewer: docker build -t evbiodist . ; docker run --rm -v "$PWD":/data evbiodist run study.toml --out results
FROM python:3.12-slim-bookworm

COPY pyproject.toml README.md LICENSE /src/
COPY evbiodist /src/evbiodist
COPY plugins /src/plugins
COPY sample_data /src/sample_data
RUN pip install --no-cache-dir "/src[export,library,cluster]" && rm -rf /src

# results belong to the user who runs it, not to root
RUN useradd --create-home --uid 1000 evbiodist
USER evbiodist
WORKDIR /data
ENV OPENBLAS_NUM_THREADS=1
ENTRYPOINT ["evbiodist"]
CMD ["--help"]
