// Package kubernetes holds the Helm chart and the manifests in deploy to what
// Kubernetes takes. It is a module of its own, so that Helm and the types of
// Kubernetes do not become requirements of Postern.
package kubernetes
