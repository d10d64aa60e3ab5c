{{- /* Environment with the URI of MLflow's database, the password by reference. */ -}}
{{- define "perennial.mlflowDatabase" -}}
{{- if .Values.postgresql.enabled -}}
- name: POSTGRES_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .Values.postgresql.existingSecret }}, key: password}}
- name: MLFLOW_BACKEND_STORE_URI
  value: postgresql+psycopg2://perennial:$(POSTGRES_PASSWORD)@{{ include "perennial.fullname" . }}-postgresql:5432/mlflow
{{- else -}}
- name: MLFLOW_BACKEND_STORE_URI
  valueFrom: {secretKeyRef: {name: {{ .Values.mlflow.database.existingSecret }}, key: {{ .Values.mlflow.database.key }}}}
{{- end -}}
{{- end -}}

{{- /* Shell that adds the image's driver, psycopg2, to a URI without one: SQLAlchemy would look for psycopg 3. */ -}}
{{- define "perennial.mlflowDriver" -}}
case "$MLFLOW_BACKEND_STORE_URI" in postgres://*|postgresql://*) export MLFLOW_BACKEND_STORE_URI="postgresql+psycopg2://${MLFLOW_BACKEND_STORE_URI#*://}";; esac
{{- end -}}
