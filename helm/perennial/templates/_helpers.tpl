{{- define "perennial.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* Short enough for the longest suffix that is appended to it. */ -}}
{{- define "perennial.fullname" -}}
{{- $name := include "perennial.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* The labels that select the pods of a component: (list . "serving"). They must not change between chart versions. */ -}}
{{- define "perennial.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "perennial.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* (list . "serving") */ -}}
{{- define "perennial.labels" -}}
{{- $root := index . 0 -}}
{{ include "perennial.selector" . }}
app.kubernetes.io/part-of: perennial
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* Labels of pods. A label that changes with the chart's version would restart all pods. */ -}}
{{- define "perennial.podLabels" -}}
{{ include "perennial.selector" . }}
app.kubernetes.io/part-of: perennial
{{- end -}}

{{- /* The labels that select step pods, of any release: the pod launcher sets them. */ -}}
{{- define "perennial.stepSelector" -}}
app.kubernetes.io/part-of: perennial
app.kubernetes.io/component: step
{{- end -}}

{{- define "perennial.stepNamespace" -}}
{{- default .Release.Namespace .Values.steps.namespace -}}
{{- end -}}

{{- /* "true" if steps have a namespace of their own; otherwise empty. */ -}}
{{- define "perennial.stepsApart" -}}
{{- if ne (include "perennial.stepNamespace" .) .Release.Namespace -}}true{{- end -}}
{{- end -}}

{{- /* The line `namespace` of an object that is where the steps are, if that is not the release's namespace. */ -}}
{{- define "perennial.besideSteps" -}}
{{- if include "perennial.stepsApart" . -}}namespace: {{ include "perennial.stepNamespace" . }}{{- end -}}
{{- end -}}

{{- /* The name of a Service for pods in every namespace that calls it: (list . "perennial-mlflow") */ -}}
{{- define "perennial.host" -}}
{{- $root := index . 0 -}}
{{- if include "perennial.stepsApart" $root -}}{{ index . 1 }}.{{ $root.Release.Namespace }}.svc{{- else -}}{{ index . 1 }}{{- end -}}
{{- end -}}

{{- /* One of the project's images: (list . "serving") */ -}}
{{- define "perennial.image" -}}
{{- $root := index . 0 -}}
{{- $images := $root.Values.images -}}
{{- $image := index $images (index . 1) -}}
{{- $name := list $images.registry $image.repository | compact | join "/" -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (coalesce $image.tag $images.tag $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* An image of another project: {repository, tag, digest} */ -}}
{{- define "perennial.officialImage" -}}
{{- if .digest -}}{{ printf "%s@%s" .repository .digest }}{{- else -}}{{ printf "%s:%s" .repository .tag }}{{- end -}}
{{- end -}}

{{- define "perennial.pullSecrets" -}}
{{- with .Values.images.pullSecrets -}}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end -}}
{{- end -}}

{{- /* The restricted pod security standard, for pods ... */ -}}
{{- define "perennial.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int64 .Values.security.runAsUser }}
runAsGroup: {{ int64 .Values.security.runAsGroup }}
fsGroup: {{ int64 .Values.security.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /* ... and containers. */ -}}
{{- define "perennial.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Where the pods of one component run. The context is the component's values. */ -}}
{{- define "perennial.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Environment of a component: settings, and credentials by reference, those of steps unless it has a Secret of its
own: (list . .Values.hooks) */ -}}
{{- define "perennial.environment" -}}
{{- $root := index . 0 -}}
- configMapRef: {name: {{ include "perennial.fullname" $root }}-settings}
{{- with coalesce (index . 1).credentials.existingSecret $root.Values.credentials.existingSecret }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- end -}}

{{- /* The folder for what has no URI: on the shared volume. Without a volume, nothing in it has to last. */ -}}
{{- define "perennial.home" -}}
{{- ternary "/var/lib/perennial" "/tmp/perennial" .Values.state.volume.enabled -}}
{{- end -}}

{{- /* "true" if serving mounts the shared volume, which it needs only for the lake; otherwise empty. */ -}}
{{- define "perennial.servingSharesVolume" -}}
{{- if and .Values.state.volume.enabled (not .Values.state.uris.lake) -}}true{{- end -}}
{{- end -}}

{{- /* Volumes for the home folder and /tmp: (list . true). If there is a shared volume, home is that volume or, with an
empty second element, an emptyDir. */ -}}
{{- define "perennial.homeVolume" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.state.volume.enabled -}}
- name: home
{{- if index . 1 }}
  persistentVolumeClaim: {claimName: {{ include "perennial.stateClaim" $root }}}
{{- else }}
  emptyDir: {sizeLimit: 2Gi}
{{- end }}
{{ end -}}
- name: tmp
  emptyDir: {sizeLimit: 2Gi}
{{- end -}}

{{- define "perennial.homeMounts" -}}
{{- if .Values.state.volume.enabled -}}
- {name: home, mountPath: {{ include "perennial.home" . }}}
{{ end -}}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "perennial.stateClaim" -}}
{{- default (printf "%s-state" (include "perennial.fullname" .)) .Values.state.volume.existingClaim -}}
{{- end -}}

{{- define "perennial.priorityPrefix" -}}
{{- default (include "perennial.fullname" .) .Values.priorityClasses.prefix -}}
{{- end -}}

{{- /* The line priorityClassName of a pod's spec, or nothing: (list . "serving") */ -}}
{{- define "perennial.priority" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.priorityClasses.enabled -}}
priorityClassName: {{ include "perennial.priorityPrefix" $root }}-{{ index . 1 }}
{{- end -}}
{{- end -}}

{{- define "perennial.mlflowUrl" -}}
{{- if .Values.mlflow.enabled -}}
{{- printf "http://%s:%v" (include "perennial.host" (list . (printf "%s-mlflow" (include "perennial.fullname" .)))) .Values.mlflow.port -}}
{{- else -}}
{{- .Values.mlflow.externalUrl -}}
{{- end -}}
{{- end -}}
