{{- /* Environment that says where MLflow's tables are, the password by reference. */ -}}
{{- define "perennial.mlflowDatabase" -}}
{{- if .Values.postgresql.enabled -}}
- name: POSTGRES_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .Values.postgresql.existingSecret }}, key: password}}
- name: MLFLOW_BACKEND_STORE_URI
  value: postgresql://perennial:$(POSTGRES_PASSWORD)@{{ include "perennial.fullname" . }}-postgresql:5432/mlflow
{{- else -}}
- name: MLFLOW_BACKEND_STORE_URI
  valueFrom: {secretKeyRef: {name: {{ .Values.mlflow.database.existingSecret }}, key: {{ .Values.mlflow.database.key }}}}
{{- end -}}
{{- end -}}
