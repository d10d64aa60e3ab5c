{{- /* A Job that Helm runs before or after a change of the release. Each may run any number of times.
It has a service account of its own, without rights.
dict: root, name (the component), when (hooks), image, command, env or environment, storage (the home folder). */ -}}
{{- define "perennial.hook" -}}
{{- $root := .root -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "perennial.fullname" $root }}-{{ .name }}
  labels: {{- include "perennial.labels" (list $root .name) | nindent 4 }}
  {{- if hasPrefix "pre-" .when }}
  annotations:
    # Before the release's own objects.
    helm.sh/hook: {{ .when }}
    helm.sh/hook-weight: "-10"
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
  {{- end }}
automountServiceAccountToken: false
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "perennial.fullname" $root }}-{{ .name }}
  labels: {{- include "perennial.labels" (list $root .name) | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .when }}
    helm.sh/hook-weight: {{ default 0 .weight | quote }}
    # Helm does not delete hooks with the release. So a Job that succeeded goes at once; one that failed stays for a
    # day, with its log, or until the next.
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  backoffLimit: 4
  activeDeadlineSeconds: 900
  ttlSecondsAfterFinished: 86400
  template:
    metadata:
      labels: {{- include "perennial.podLabels" (list $root .name) | nindent 8 }}
    spec:
      {{- include "perennial.pullSecrets" $root | nindent 6 }}
      restartPolicy: Never
      serviceAccountName: {{ include "perennial.fullname" $root }}-{{ .name }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext: {{- include "perennial.podSecurity" $root | nindent 8 }}
      containers:
        - name: {{ .name }}
          image: {{ include "perennial.image" (list $root .image) }}
          imagePullPolicy: {{ $root.Values.images.pullPolicy }}
          command: {{ .command | toJson }}
          {{- if .storage }}
          envFrom: {{- include "perennial.environment" (list $root $root.Values.hooks) | nindent 12 }}
          {{- end }}
          env:
            - {name: HOME, value: /tmp}
            {{- with .env }}
            {{- . | nindent 12 }}
            {{- end }}
          resources: {{- toYaml $root.Values.hooks.resources | nindent 12 }}
          securityContext: {{- include "perennial.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            {{- if .storage }}
            {{- include "perennial.homeMounts" $root | nindent 12 }}
            {{- else }}
            - {name: tmp, mountPath: /tmp}
            {{- end }}
      volumes:
        {{- if .storage }}
        {{- include "perennial.homeVolume" (list $root $root.Values.state.volume.enabled) | nindent 8 }}
        {{- else }}
        - name: tmp
          emptyDir: {sizeLimit: 256Mi}
        {{- end }}
{{- end -}}
