{{- /* A peer: the pods of one component of this release: (list . "serving") */ -}}
{{- define "perennial.peer" -}}
{{- $root := index . 0 -}}
- podSelector: {matchLabels: {{ include "perennial.selector" . | fromYaml | toJson }}}
{{- if include "perennial.stepsApart" $root }}
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ $root.Release.Namespace }}}}
{{- end }}
{{- end -}}

{{- define "perennial.stepPeer" -}}
- podSelector: {matchLabels: {{ include "perennial.stepSelector" . | fromYaml | toJson }}}
{{- if include "perennial.stepsApart" . }}
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ include "perennial.stepNamespace" . }}}}
{{- end }}
{{- end -}}

{{- /* An egress rule to something outside the release: (list . "objectStore") */ -}}
{{- define "perennial.outside" -}}
{{- $outside := index (index . 0).Values.networkPolicy.external (index . 1) -}}
- to: {{- toYaml $outside.to | nindent 4 }}
  ports:
  {{- range $outside.ports }}
    - {port: {{ . }}}
  {{- end }}
{{- end -}}

{{- define "perennial.toObjectStore" -}}
{{- if compact (values .Values.state.uris) }}
{{ include "perennial.outside" (list . "objectStore") }}
{{- end }}
{{- end -}}

{{- define "perennial.toOnlineStore" -}}
{{- if .Values.redis.enabled }}
- to: {{- include "perennial.peer" (list . "redis") | nindent 4 }}
  ports: [{port: 6379}]
{{- else }}
{{ include "perennial.outside" (list . "onlineStore") }}
{{- end }}
{{- end -}}

{{- define "perennial.toEngine" -}}
{{- if .Values.engine.url }}
{{ include "perennial.outside" (list . "engine") }}
{{- end }}
{{- end -}}

{{- define "perennial.toMlflow" -}}
{{- if .Values.mlflow.enabled }}
- to: {{- include "perennial.peer" (list . "mlflow") | nindent 4 }}
  ports: [{port: {{ .Values.mlflow.port }}}]
{{- else }}
{{ include "perennial.outside" (list . "mlflow") }}
{{- end }}
{{- end -}}

{{- define "perennial.toDatabase" -}}
{{- if .Values.postgresql.enabled }}
- to: {{- include "perennial.peer" (list . "postgresql") | nindent 4 }}
  ports: [{port: 5432}]
{{- else }}
{{ include "perennial.outside" (list . "database") }}
{{- end }}
{{- end -}}
