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
# As on the host: a static executable of the ordinary target. All services at once, so that the second image finds the first one's layer.
RUN RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target "$(rustc -vV | sed -n 's/^host: //p')" \
      -p app -p dashboard -p operator -p tidemark \
 && mkdir /out && cd target/*/release && for service in app dashboard operator tidemark; do install -D "$service" "/out/$service/service"; done
COPY --from=page /src/dist /out/app/page

FROM scratch AS source
ARG SERVICE
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="$SERVICE" org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.description="Tidemark: live numbers from Postgres on every screen" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=binaries /out/${SERVICE}/ /
ENV PAGE_DIR=/page
USER 65532:65532
ENTRYPOINT ["/service"]
