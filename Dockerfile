# The image holds one static binary (time zones included) and the roots of public CAs, and runs as
# nobody in particular. Build with the version to be shown by "postern version":
#
#   docker build --build-arg VERSION=v1.2.3 -t postern .
#
# With "--platform linux/arm64" it is one for ARM, built as fast: Go compiles for either.
#
# "docker run --rm --env-file FILE postern check -offline" tries a configuration.
# Run it with "--stop-timeout 40": after Docker's ten seconds sessions would be
# cut that POSTERN_TIMEOUT_DRAIN still lets end.
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
ARG VERSION=""
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH
ENV GOOS=$TARGETOS GOARCH=$TARGETARCH
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.release=${VERSION}" -o /out/postern ./cmd/postern
RUN install -d -m 1777 /out/root/tmp && install -d -m 700 /out/root/var/lib/postern

FROM scratch
ARG VERSION=""
LABEL org.opencontainers.image.title="postern" org.opencontainers.image.version="${VERSION}" org.opencontainers.image.licenses="Apache-2.0"
# Upstreams with TLS are verified against these, unless POSTERN_UPSTREAM_CA_FILE
# names others.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/postern /postern
# A long report is sorted in /tmp, unless the ledger is a file: that fits in
# /var/lib/postern, and so does a volume, which takes its owner from there.
COPY --from=build --chown=65532:65532 /out/root/ /
USER 65532:65532
EXPOSE 993 995 143 110 9993
# Asks the admin port of the same container; there is no shell or curl in it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/postern", "healthcheck"]
ENTRYPOINT ["/postern"]
CMD ["serve"]
