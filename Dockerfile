# syntax=docker/dockerfile:1

# The compiler that rust-toolchain.toml names; that file stays outside, since it would fetch what only checks need.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src

# Dependencies first, with empty sources of our own: this layer, by far the longest, changes with Cargo.lock alone.
COPY Cargo.toml Cargo.lock ./
COPY crds/Cargo.toml crds/
COPY controllers/Cargo.toml controllers/
RUN mkdir -p src crds/src controllers/src tests/platform benches/platform \
    && touch src/lib.rs crds/src/lib.rs controllers/src/lib.rs \
    && for main in src tests/platform benches/platform; do echo 'fn main() {}' > $main/main.rs; done \
    && cargo build --release --locked --bin cornjacket

COPY crds crds
COPY controllers controllers
COPY migrations migrations
COPY src src
# Sources keep the times that they have outside, and those may be before the build above.
RUN find src crds controllers -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --bin cornjacket

# Debian rather than an empty image: its database of packages, and Cargo.lock below, are what tools make a bill of
# materials of. No shell is needed, and none is used.
FROM debian:bookworm-slim
# Whatever mends these packages has is wanted: no versions.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* /var/log/* \
    && useradd --uid 65532 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin cornjacket
COPY --from=build /src/target/release/cornjacket /usr/local/bin/cornjacket
COPY Cargo.lock LICENSE /usr/share/doc/cornjacket/

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Cornjacket" \
      org.opencontainers.image.description="An event platform that a team declares instead of programs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"

# By number, so that Kubernetes sees that it is not root.
USER 65532:65532
EXPOSE 8080 8081 8083 8084 8085
ENTRYPOINT ["/usr/local/bin/cornjacket"]
