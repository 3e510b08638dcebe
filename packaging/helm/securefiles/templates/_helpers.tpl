{{- define "securefiles.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 53 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "securefiles.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "securefiles.labels" -}}
{{ include "securefiles.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "-" | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | quote }}
{{- end }}

{{- define "securefiles.config" -}}
{{- .Values.config | default (.Files.Get "files/securefiles.yaml") }}
{{- end }}

{{- /* nginx's part belongs to the configuration: one of one's own needs its own. */}}
{{- define "securefiles.nginx" -}}
{{- if and .Values.config (not .Values.nginxConfig) }}
{{- fail "config is set, and nginxConfig, which belongs to it, is not: print it with `securefiles nginx --complete --container --config FILE`" }}
{{- else if and .Values.nginxConfig (not .Values.config) }}
{{- fail "nginxConfig is set, and config, which it belongs to, is not" }}
{{- end }}
{{- .Values.nginxConfig | default (.Files.Get "files/nginx.conf") }}
{{- end }}
