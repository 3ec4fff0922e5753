{{- define "postern.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "postern.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Of the chart's values and a suffix of the name. */ -}}
{{- define "postern.metadata" -}}
{{- $root := first . -}}
name: {{ include "postern.fullname" $root }}{{ last . }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "postern.selector" $root | nindent 2 }}
  app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ $root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- /* The listeners that are on, by name, with the ports that clients know and the pod's. */ -}}
{{- define "postern.listeners" -}}
{{- $ports := dict "imaps" (list 993 10993) "imap" (list 143 11143) "pop3s" (list 995 10995) "pop3" (list 110 11110) -}}
{{- range $name, $pair := $ports -}}
{{- if and (get $.Values.listeners $name) (get $.Values.config (printf "UPSTREAM_%s" (trimSuffix "s" $name | upper))) }}
{{ $name }}: {service: {{ first $pair }}, pod: {{ last $pair }}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The Secrets with certificates. */ -}}
{{- define "postern.certificates" -}}
{{- if .Values.certificate.enabled -}}
{{- $name := include "postern.fullname" . -}}
{{- concat .Values.tls.secretNames (list (printf "%s-ecdsa" $name) (printf "%s-rsa" $name)) | toJson -}}
{{- else -}}
{{- .Values.tls.secretNames | toJson -}}
{{- end -}}
{{- end -}}

{{- /* YAML reads numbers as floating-point ones, which print with an exponent from a million on. */ -}}
{{- define "postern.value" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{- /* TIMEOUT_DRAIN in whole seconds, rounded up. */ -}}
{{- define "postern.drainSeconds" -}}
{{- $epoch := toDate "2006-01-02" "2000-01-01" -}}
{{- $end := $epoch | mustDateModify (printf "+%s" (.Values.config.TIMEOUT_DRAIN | default "30s")) | mustDateModify "+999ms" -}}
{{- sub (unixEpoch $end) (unixEpoch $epoch) -}}
{{- end -}}

{{- define "postern.maxReplicas" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.maxReplicas }}{{ else }}{{ .Values.replicas }}{{ end -}}
{{- end -}}

{{- define "postern.adminScheme" -}}
{{- if hasKey .Values.files "ADMIN_TLS_CERT_FILE" }}HTTPS{{ else }}HTTP{{ end -}}
{{- end -}}
