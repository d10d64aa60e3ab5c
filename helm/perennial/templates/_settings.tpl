{{- /* The CT_* settings that follow from the chart's values, as YAML. */ -}}
{{- define "perennial.settings" -}}
{{- $full := include "perennial.fullname" . -}}
CT_HOME: {{ include "perennial.home" . }}
{{- range $name, $uri := .Values.state.uris }}
{{- if $uri }}
CT_{{ upper $name }}_URI: {{ $uri | quote }}
{{- end }}
{{- end }}
# Steps run in this image, whoever starts them.
CT_IMAGE: {{ include "perennial.image" (list . "training") }}
CT_TRACKING_URI: {{ include "perennial.mlflowUrl" . | quote }}
{{- with .Values.onlineStore.url }}
CT_ONLINE_STORE: {{ . | quote }}
{{- end }}
{{- if .Values.serving.enabled }}
# Every address behind the headless service is a replica.
CT_SERVING_URLS: dns+http://{{ $full }}-serving-replicas:3000
CT_SERVING_MODEL: {{ .Values.serving.model }}
{{- end }}
{{- end -}}
