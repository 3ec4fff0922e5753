# The image holds one static binary and the roots of public CAs, and runs as
# nobody in particular. Build with the version to be shown by "postern version":
#
#   docker build --build-arg VERSION=v1.2.3 -t postern .
FROM golang:1.26-bookworm AS build
ARG VERSION=""
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.release=${VERSION}" -o /out/postern ./cmd/postern

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/postern /postern
USER 65532:65532
EXPOSE 993 995 143 110 9993
ENTRYPOINT ["/postern"]
CMD ["serve"]
