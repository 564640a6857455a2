{{- define "svcmesh.selector" -}}
app.kubernetes.io/name: svcmesh
app.kubernetes.io/component: agent
{{- end }}

{{- define "svcmesh.labels" -}}
{{ include "svcmesh.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: svcmesh
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
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
