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

{{- /* "true" if this release's MLflow needs a login; otherwise empty. */ -}}
{{- define "perennial.mlflowLogin" -}}
{{- if and .Values.mlflow.enabled .Values.mlflow.login.enabled -}}true{{- end -}}
{{- end -}}

{{- /* Environment with a login of this release's MLflow, if it needs one: (list . "serving") */ -}}
{{- define "perennial.mlflowUser" -}}
{{- $root := index . 0 -}}
{{- if include "perennial.mlflowLogin" $root -}}
- {name: MLFLOW_TRACKING_USERNAME, value: {{ index . 1 }}}
- name: MLFLOW_TRACKING_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $root.Values.mlflow.login.existingSecret }}, key: {{ index . 1 }}-password}}
{{- end -}}
{{- end -}}

{{- /* Python that runs `mlflow db upgrade` in its own process: the URI, with its password, is in no command line. */ -}}
{{- define "perennial.mlflowUpgrade" -}}
import os; from mlflow.cli import cli; cli(["db", "upgrade", os.environ["MLFLOW_BACKEND_STORE_URI"]])
{{- end -}}
