# The image of any service: docker build --build-arg SERVICE=dashboard --target host --tag dashboard:0.1.0 .
# `host` takes a static binary that `make images` built on this machine; `source` builds it in containers, for machines without Rust.
# `host` stands first and needs no other image: a builder that reaches no registry can make it.

FROM scratch AS host
ARG SERVICE
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="$SERVICE" org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.description="Tidemark: live numbers from Postgres on every screen" org.opencontainers.image.licenses="Apache-2.0"
COPY .images/${SERVICE}/ /
# Only the app reads it: the page that it serves.
ENV PAGE_DIR=/page
USER 65532:65532
ENTRYPOINT ["/service"]

FROM node:20.20-bookworm-slim AS page
WORKDIR /src
COPY frontend/package.json frontend/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY frontend/ ./
RUN npm run build

FROM rust:1.95.0-bookworm AS binaries
WORKDIR /src
COPY . .
# All services at once, so that the second image finds the first one's layer.
RUN make static
COPY --from=page /src/dist .images/app/page

FROM scratch AS source
ARG SERVICE
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="$SERVICE" org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.description="Tidemark: live numbers from Postgres on every screen" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=binaries /src/.images/${SERVICE}/ /
ENV PAGE_DIR=/page
USER 65532:65532
ENTRYPOINT ["/service"]
