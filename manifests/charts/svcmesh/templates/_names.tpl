{{- /* What tells this release's pods from all others: it can never change, so nothing that does may be in it. */}}
{{- define "svcmesh.selector" -}}
app.kubernetes.io/name: svcmesh
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Without the chart's version: a change of the chart alone must not replace every node's agent. */}}
{{- define "svcmesh.podLabels" -}}
{{ include "svcmesh.selector" . }}
app.kubernetes.io/component: agent
app.kubernetes.io/part-of: svcmesh
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "svcmesh.labels" -}}
{{ include "svcmesh.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "svcmesh.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "svcmesh.adminPort" -}}
{{ regexFind "[0-9]+$" .Values.agent.adminListen }}
{{- end }}

{{- define "svcmesh.adminAddress" -}}
{{ regexReplaceAll ":[0-9]+$" .Values.agent.adminListen "" | trimPrefix "[" | trimSuffix "]" }}
{{- end }}

{{- /* Not empty if the admin page answers at the pod's own address, which is the node's. */}}
{{- define "svcmesh.adminAtPodAddress" -}}
{{ has (include "svcmesh.adminAddress" .) (list "0.0.0.0" "::" "$(HOST_IP)") | ternary "yes" "" }}
{{- end }}

{{- define "svcmesh.adminGet" -}}
httpGet:
  path: /healthz
  port: {{ include "svcmesh.adminPort" . }}
  {{- if not (include "svcmesh.adminAtPodAddress" .) }}
  host: {{ include "svcmesh.adminAddress" . | quote }}
  {{- end }}
{{- end }}
