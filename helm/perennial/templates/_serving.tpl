{{- /* The prediction services, as JSON: {services: [{name, component, object, serving, ...}]}. `serving` are the
service's own values: those of `serving`, with what `serving.services.<name>` sets in their place. `component` selects
its pods, `object` is the name of its objects. The one named `default` comes first. */ -}}
{{- define "perennial.services" -}}
{{- $full := include "perennial.fullname" . -}}
{{- $services := list -}}
{{- if .Values.serving.enabled -}}
{{- $base := omit .Values.serving "services" "enabled" -}}
{{- $services = append $services (dict "name" "default" "component" "serving" "object" (printf "%s-serving" $full) "serving" $base) -}}
{{- /* Ways from outside lead to one service. The others have their own, or none. */ -}}
{{- $shared := mustMergeOverwrite (deepCopy $base) (dict "ingress" (dict "enabled" false "host" "") "httpRoute" (dict "enabled" false "hostnames" list)) -}}
{{- range $name, $own := .Values.serving.services -}}
{{- $component := printf "serving-%s" ($name | replace "_" "-") -}}
{{- $values := mustMergeOverwrite (deepCopy $shared) (deepCopy (default dict $own)) -}}
{{- $services = append $services (dict "name" $name "component" $component "object" (printf "%s-%s" $full $component) "serving" $values) -}}
{{- end -}}
{{- end -}}
{{- dict "services" $services | toJson -}}
{{- end -}}

{{- /* The paths of one model that are routed from outside, as JSON: predictions, and nothing that tells or changes how the
service does: (list $model $models) */ -}}
{{- define "perennial.predictionPaths" -}}
{{- $model := index . 0 -}}
{{- $alone := eq (len (index . 1)) 1 -}}
{{- $of := printf "/models/%s" $model -}}
{{- $paths := list (printf "%s/predict" $of) (printf "%s/predict_batch" $of) (printf "/v2%s/infer" $of) -}}
{{- if $alone -}}{{- $paths = concat $paths (list "/predict" "/predict_batch") -}}{{- end -}}
{{- $paths | toJson -}}
{{- end -}}

{{- /* Network policy peers: the pods of all prediction services. */ -}}
{{- define "perennial.servingPeers" -}}
{{- $root := . -}}
{{- range (include "perennial.services" . | fromJson).services }}
{{ include "perennial.peer" (list $root .component) }}
{{- end -}}
{{- end -}}

{{- /* The pod template of a replica, for the Deployment and the StatefulSet: (list . $service) */ -}}
{{- define "perennial.servingPod" -}}
{{- $service := index . 1 -}}
{{- with index . 0 -}}
{{- $serving := $service.serving -}}
{{- $selector := include "perennial.selector" (list . $service.component) -}}
metadata:
  labels: {{- include "perennial.podLabels" (list . $service.component) | nindent 4 }}
  annotations:
    # A changed setting replaces the pods.
    checksum/settings: {{ include "perennial.settings" . | cat (toYaml .Values.settings) (toYaml .Values.env) | sha256sum }}
    {{- with $serving.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "perennial.pullSecrets" . | nindent 2 }}
  serviceAccountName: {{ $service.object }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- include "perennial.priority" (list . "serving") | nindent 2 }}
  terminationGracePeriodSeconds: {{ $serving.terminationGracePeriodSeconds }}
  securityContext: {{- include "perennial.podSecurity" . | nindent 4 }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: topology.kubernetes.io/zone
      whenUnsatisfiable: ScheduleAnyway
      labelSelector: {matchLabels: {{ $selector | fromYaml | toJson }}}
      matchLabelKeys: [{{ ternary "controller-revision-hash" "pod-template-hash" $serving.spool.persistence.enabled }}]
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector: {matchLabels: {{ $selector | fromYaml | toJson }}}
      matchLabelKeys: [{{ ternary "controller-revision-hash" "pod-template-hash" $serving.spool.persistence.enabled }}]
  {{- include "perennial.placement" $serving | nindent 2 }}
  containers:
    - name: serving
      image: {{ include "perennial.image" (list . "serving") }}
      imagePullPolicy: {{ .Values.images.pullPolicy }}
      ports:
        - {name: http, containerPort: 3000}
        # /metrics, the OpenAPI page and /admin.
        - {name: management, containerPort: 3002}
      envFrom: {{- include "perennial.environment" (list . $serving) | nindent 8 }}
      env:
        - {name: CT_SERVING_NAME, value: {{ $service.name }}}
        - {name: CT_SERVING_MODELS, value: {{ join "," $serving.models | quote }}}
        - {name: CT_SERVING_MAXIMUM_MODELS, value: {{ int $serving.maximumModels | quote }}}
        - {name: CT_SERVING_LOAD_MIB, value: {{ int $serving.trial.memoryMiB | quote }}}
        - {name: CT_SERVING_LOAD_SECONDS, value: {{ int $serving.trial.seconds | quote }}}
        - {name: CT_SERVING_STATE, value: /var/lib/perennial-serving}
        - {name: CT_SERVING_MANAGEMENT_PORT, value: "3002"}
        - {name: CT_IMAGE, value: {{ include "perennial.image" (list . "serving") }}}
        {{- if $serving.apiKeys.existingSecret }}
        - {name: CT_SERVING_KEYS_FILE, value: /etc/perennial/api-keys/keys}
        {{- end }}
        {{- include "perennial.mlflowUser" (list . "serving") | nindent 8 }}
        - {name: HOME, value: /tmp}
        - {name: BENTOML_HOME, value: /tmp/bentoml}
      startupProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 3
        failureThreshold: {{ div (add $serving.startupSeconds 2) 3 }}
      livenessProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        # Two failures in a row: a pod that cannot answer gets requests for 1 to 2 s more.
        periodSeconds: 1
        timeoutSeconds: 2
        failureThreshold: 2
      lifecycle:
        # The pod is removed from the endpoints before it stops answering.
        preStop: {sleep: {seconds: {{ $serving.drainSeconds }}}}
      resources: {{- toYaml $serving.resources | nindent 8 }}
      securityContext: {{- include "perennial.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- include "perennial.homeMounts" . | nindent 8 }}
        - {name: spool, mountPath: /var/lib/perennial-serving}
        {{- if $serving.apiKeys.existingSecret }}
        # Mounted as a folder, so that a changed Secret reaches the running service.
        - {name: api-keys, mountPath: /etc/perennial/api-keys, readOnly: true}
        {{- end }}
  volumes:
    {{- include "perennial.homeVolume" (list . (include "perennial.servingSharesVolume" .)) | nindent 4 }}
    {{- with $serving.apiKeys }}
    {{- if .existingSecret }}
    - name: api-keys
      secret: {secretName: {{ .existingSecret }}, items: [{key: {{ .key }}, path: keys}]}
    {{- end }}
    {{- end }}
    {{- if not $serving.spool.persistence.enabled }}
    - name: spool
      emptyDir: {sizeLimit: {{ $serving.spool.sizeLimit }}}
    {{- end }}
{{- end -}}
{{- end -}}
