{{- /* The CT_* settings that follow from the chart's values, as YAML. */ -}}
{{- define "perennial.settings" -}}
{{- $full := include "perennial.fullname" . -}}
CT_HOME: {{ include "perennial.home" . }}
{{- range $name, $uri := .Values.state.uris }}
{{- if $uri }}
CT_{{ upper $name }}_URI: {{ $uri | quote }}
{{- end }}
{{- end }}
# The image of steps, under every launcher.
CT_IMAGE: {{ include "perennial.image" (list . "training") }}
CT_TRACKING_URI: {{ include "perennial.mlflowUrl" . | quote }}
{{- if include "perennial.mlflowLogin" . }}
# Of steps; their Secret has MLFLOW_TRACKING_PASSWORD.
MLFLOW_TRACKING_USERNAME: steps
{{- end }}
{{- with .Values.mlflow.publicUrl }}
CT_MLFLOW_URL: {{ . | quote }}
{{- end }}
{{- with .Values.onlineStore.url }}
CT_ONLINE_STORE: {{ . | quote }}
{{- end }}
CT_ENGINE: {{ .Values.engine.name }}
{{- with .Values.engine.url }}
CT_ENGINE_URL: {{ . | quote }}
{{- end }}
# Airflow's tasks start one pod for each step.
CT_LAUNCHER: pod
CT_POD_NAMESPACE: {{ include "perennial.stepNamespace" . }}
CT_POD_SERVICE_ACCOUNT: {{ $full }}-step
CT_POD_USER: {{ int64 .Values.security.runAsUser | quote }}
CT_POD_IMAGE_PULL_POLICY: {{ .Values.images.pullPolicy }}
CT_POD_CONFIG_MAP: {{ $full }}-settings
{{- with .Values.images.pullSecrets }}
CT_POD_IMAGE_PULL_SECRETS: {{ join "," . | quote }}
{{- end }}
{{- with .Values.credentials.existingSecret }}
CT_POD_SECRETS: {{ . }}
{{- end }}
{{- with .Values.signing.trustedKeys }}
CT_TRUSTED_KEYS: {{ join "," . | quote }}
{{- end }}
{{- with .Values.signing.existingSecret }}
# Mounted into pods of the step register alone.
CT_POD_SIGNING_SECRET: {{ . }}
{{- end }}
{{- if .Values.state.volume.enabled }}
CT_POD_VOLUME_CLAIM: {{ include "perennial.stateClaim" . }}
{{- end }}
{{- if .Values.priorityClasses.enabled }}
CT_POD_PRIORITY_CLASS: {{ include "perennial.priorityPrefix" . }}-step
{{- end }}
{{- $urls := list }}
{{- range (include "perennial.services" . | fromJson).services }}
{{- $urls = append $urls (printf "%sdns+http://%s:3000" (ternary "" (printf "%s=" .name) (eq .name "default")) (include "perennial.host" (list $ (printf "%s-replicas" .object)))) }}
{{- end }}
{{- with $urls }}
# Every address behind a headless service is a replica.
CT_SERVING_URLS: {{ join "," . }}
{{- end }}
{{- end -}}
