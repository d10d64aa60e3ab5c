{{- /* Values that cannot work together: each has a condition and a message that says what to change. */ -}}
{{- define "perennial.refusals" -}}
{{- $v := .Values -}}
{{- $problems := list -}}

{{- $missing := list -}}
{{- range $name := list "landing" "lake" "work" "ledger" -}}
{{- if not (index $v.state.uris $name) -}}{{- $missing = append $missing (printf "state.uris.%s" $name) -}}{{- end -}}
{{- end -}}
{{- if and $missing (not $v.state.volume.enabled) -}}
{{- $problems = append $problems (printf "Nowhere to keep state: set %s to URIs of an object store, or state.volume.enabled." (join ", " $missing)) -}}
{{- end -}}

{{- if and (not $v.redis.enabled) (not $v.onlineStore.url) (not $v.credentials.existingSecret) -}}
{{- $problems = append $problems "No online store: set onlineStore.url, or name a Secret with CT_ONLINE_STORE in credentials.existingSecret; for a trial, redis.enabled." -}}
{{- end -}}
{{- if contains "@" $v.onlineStore.url -}}
{{- $problems = append $problems "onlineStore.url carries a password: put the URL into the key CT_ONLINE_STORE of the Secret credentials.existingSecret." -}}
{{- end -}}
{{- if and (eq $v.engine.name "spark") (not $v.engine.url) -}}
{{- $problems = append $problems "engine.name spark needs engine.url, the URL of a Spark Connect server, such as sc://spark:15002." -}}
{{- end -}}
{{- if contains "token=" $v.engine.url -}}
{{- $problems = append $problems "engine.url carries a token: put it into the key SPARK_CONNECT_AUTHENTICATE_TOKEN of the Secret credentials.existingSecret." -}}
{{- end -}}
{{- if and $v.redis.enabled $v.onlineStore.url -}}
{{- $problems = append $problems "Two online stores: redis.enabled starts one, onlineStore.url names another." -}}
{{- end -}}
{{- if and $v.redis.enabled (not $v.redis.existingSecret) -}}
{{- $problems = append $problems "redis.enabled needs redis.existingSecret, a Secret with the key password; the chart creates none." -}}
{{- end -}}
{{- if and $v.redis.enabled (not $v.credentials.existingSecret) -}}
{{- $problems = append $problems (printf "redis.enabled needs credentials.existingSecret, a Secret with CT_ONLINE_STORE=redis://:<password>@%s-redis:6379/0." (include "perennial.fullname" .)) -}}
{{- end -}}

{{- range $name := list "MLFLOW_BACKEND_STORE_URI" "MLFLOW_ARTIFACTS_DESTINATION" "POSTGRES_PASSWORD" "MLFLOW_AUTH_ADMIN_USERNAME" "MLFLOW_AUTH_ADMIN_PASSWORD" "MLFLOW_FLASK_SERVER_SECRET_KEY" "STEPS_PASSWORD" "SERVING_PASSWORD" "MLFLOW_TRACKING_USERNAME" "MLFLOW_TRACKING_PASSWORD" -}}
{{- if hasKey $v.env $name -}}
{{- $problems = append $problems (printf "env.%s is the chart's own: set mlflow.database, mlflow.artifacts, mlflow.login or postgresql." $name) -}}
{{- end -}}
{{- end -}}

{{- if $v.mlflow.enabled -}}
{{- if and (not $v.postgresql.enabled) (not $v.mlflow.database.existingSecret) -}}
{{- $problems = append $problems "No database for MLflow: name a Secret with its URI in mlflow.database.existingSecret; for a trial, postgresql.enabled." -}}
{{- end -}}
{{- if and $v.postgresql.enabled $v.mlflow.database.existingSecret -}}
{{- $problems = append $problems "Two databases for MLflow: postgresql.enabled starts one, mlflow.database.existingSecret names another." -}}
{{- end -}}
{{- if and (not $v.mlflow.artifacts.uri) (not $v.mlflow.artifacts.volume.enabled) -}}
{{- $problems = append $problems "Nowhere to keep models: set mlflow.artifacts.uri to an object store, or mlflow.artifacts.volume.enabled." -}}
{{- end -}}
{{- if and $v.mlflow.artifacts.uri $v.mlflow.artifacts.volume.enabled -}}
{{- $problems = append $problems "Models can be kept in one place: mlflow.artifacts.uri or mlflow.artifacts.volume, not both." -}}
{{- end -}}
{{- if and (gt (int $v.mlflow.replicas) 1) $v.mlflow.artifacts.volume.enabled (ne $v.mlflow.artifacts.volume.accessMode "ReadWriteMany") -}}
{{- $problems = append $problems "mlflow.replicas above 1 needs artifacts that all of them reach: an object store, or accessMode ReadWriteMany." -}}
{{- end -}}
{{- if and $v.mlflow.login.enabled (not $v.mlflow.login.existingSecret) -}}
{{- $problems = append $problems "No passwords for MLflow: name a Secret with the keys admin-password, secret-key, steps-password and serving-password in mlflow.login.existingSecret; without mlflow.login.enabled, whoever reaches MLflow decides what serves." -}}
{{- end -}}
{{- if and $v.mlflow.login.enabled (not $v.credentials.existingSecret) -}}
{{- $problems = append $problems "mlflow.login.enabled needs credentials.existingSecret, a Secret with MLFLOW_TRACKING_PASSWORD: steps log in with it." -}}
{{- end -}}
{{- if $v.mlflow.externalUrl -}}
{{- $problems = append $problems "Two MLflow servers: mlflow.enabled starts one, mlflow.externalUrl names another." -}}
{{- end -}}
{{- else if not $v.mlflow.externalUrl -}}
{{- $problems = append $problems "No MLflow: set mlflow.externalUrl, or mlflow.enabled." -}}
{{- end -}}

{{- if and $v.postgresql.enabled (not $v.postgresql.existingSecret) -}}
{{- $problems = append $problems "postgresql.enabled needs postgresql.existingSecret, a Secret with the key password; the chart creates none." -}}
{{- end -}}

{{- if $v.backup.enabled -}}
{{- if not (contains "://" $v.backup.uri) -}}
{{- $problems = append $problems "backup.enabled needs backup.uri, a folder in an object store: a backup on the state's own volume is lost with it." -}}
{{- end -}}
{{- if not $v.backup.airflowDatabase.existingSecret -}}
{{- $problems = append $problems "backup.enabled needs backup.airflowDatabase.existingSecret, a Secret with the URI of Airflow's database." -}}
{{- end -}}
{{- end -}}

{{- if $v.serving.enabled -}}
{{- $objects := list -}}
{{- range $service := (include "perennial.services" . | fromJson).services -}}
{{- $serving := $service.serving -}}
{{- $at := ternary "serving" (printf "serving.services.%s" $service.name) (eq $service.name "default") -}}
{{- if or (eq $service.component "serving-replicas") (hasSuffix "-replicas" $service.component) (has $service.object $objects) -}}
{{- $problems = append $problems (printf "%s: this name is taken by an object of another service; choose another." $at) -}}
{{- end -}}
{{- $objects = append $objects $service.object -}}
{{- if gt (len $service.object) 52 -}}
{{- $problems = append $problems (printf "%s: the name %s is too long for Kubernetes, at most 52 characters: choose a shorter one, or a shorter fullnameOverride." $at $service.object) -}}
{{- end -}}
{{- $scaling := $serving.autoscaling -}}
{{- $shared := and (include "perennial.servingSharesVolume" $) (ne $v.state.volume.accessMode "ReadWriteMany") -}}
{{- if and $scaling.enabled $shared -}}
{{- $problems = append $problems (printf "%s.autoscaling cannot spread pods that share a ReadWriteOnce volume, which ties them to one node: set state.volume.accessMode to ReadWriteMany, or state.uris.lake, or switch autoscaling off." $at) -}}
{{- end -}}
{{- if and $scaling.enabled $serving.spool.persistence.enabled -}}
{{- $problems = append $problems (printf "%s.autoscaling with %s.spool.persistence would leave predictions on the volumes of removed pods: switch one of them off." $at $at) -}}
{{- end -}}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- $problems = append $problems (printf "%s.autoscaling.minReplicas is above maxReplicas." $at) -}}
{{- end -}}
{{- if and $scaling.enabled (not $scaling.cpu) (not $scaling.concurrency.enabled) -}}
{{- $problems = append $problems (printf "%s.autoscaling has nothing to scale on: set cpu, or concurrency.enabled." $at) -}}
{{- end -}}
{{- if and $scaling.enabled $scaling.cpu (not (dig "requests" "cpu" "" $serving.resources)) -}}
{{- $problems = append $problems (printf "%s.autoscaling.cpu is a share of %s.resources.requests.cpu, which is not set." $at $at) -}}
{{- end -}}
{{- if ge (int $serving.drainSeconds) (int $serving.terminationGracePeriodSeconds) -}}
{{- $problems = append $problems (printf "%s.terminationGracePeriodSeconds must leave time after %s.drainSeconds to ship the prediction log." $at $at) -}}
{{- end -}}
{{- $limit := dig "limits" "memory" "" $serving.resources | toString -}}
{{- if regexMatch "^[0-9]+[MG]i$" $limit -}}
{{- $mib := mul (regexFind "^[0-9]+" $limit | int) (ternary 1024 1 (hasSuffix "Gi" $limit)) -}}
{{- if gt (mul 4 (int $serving.trial.memoryMiB)) $mib -}}
{{- $problems = append $problems (printf "%s.trial.memoryMiB: two trials may run at a time beside the models in memory, and would take more than half of %s.resources.limits.memory (%s): lower it, or raise the limit." $at $at $limit) -}}
{{- end -}}
{{- end -}}
{{- range $way := list "ingress" "httpRoute" -}}
{{- if (index $serving $way).enabled -}}
{{- if not (or $serving.apiKeys.existingSecret $serving.trustedGateway) -}}
{{- $problems = append $problems (printf "%s.%s lets callers from outside the cluster in without a key: name a Secret in %s.apiKeys.existingSecret, or set %s.trustedGateway if the gateway authenticates them." $at $way $at $at) -}}
{{- end -}}
{{- if has "*" $serving.models -}}
{{- $problems = append $problems (printf "%s.%s routes the predictions of the models that %s.models lists: write their names in place of \"*\"." $at $way $at) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $serving.httpRoute.enabled (gt (len $serving.models) 16) -}}
{{- $problems = append $problems (printf "%s.httpRoute has a rule for each model, at most 16: divide %s.models among several services." $at $at) -}}
{{- end -}}
{{- if and $serving.ingress.enabled (not $serving.ingress.host) -}}
{{- $problems = append $problems (printf "%s.ingress.enabled needs %s.ingress.host." $at $at) -}}
{{- end -}}
{{- if $serving.httpRoute.enabled -}}
{{- if not $serving.httpRoute.hostnames -}}
{{- $problems = append $problems (printf "%s.httpRoute.enabled needs %s.httpRoute.hostnames." $at $at) -}}
{{- end -}}
{{- if not $serving.httpRoute.parentRefs -}}
{{- $problems = append $problems (printf "%s.httpRoute.enabled needs %s.httpRoute.parentRefs, the gateways it is attached to." $at $at) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- else if or $v.serving.ingress.enabled $v.serving.httpRoute.enabled -}}
{{- $problems = append $problems "serving.ingress and serving.httpRoute lead to serving, which is not enabled: set serving.enabled, or switch them off." -}}
{{- end -}}

{{- if not (or (include "perennial.stepsApart" $) $v.steps.shareNamespace) -}}
{{- $problems = append $problems "Steps would run in the namespace that holds all Secrets, and Airflow may create any pod there: name a namespace of their own in steps.namespace, with only their Secret; for a trial, steps.shareNamespace." -}}
{{- end -}}
{{- if and $v.steps.namespace $v.steps.shareNamespace -}}
{{- $problems = append $problems "steps.namespace and steps.shareNamespace contradict each other: set one." -}}
{{- end -}}
{{- range $v.steps.launchers -}}
{{- if and $v.steps.namespace (has (default "" .namespace) (list "" $.Release.Namespace $v.steps.namespace)) -}}
{{- $problems = append $problems (printf "steps.launchers: %s would be in a namespace with Secrets of others, and Airflow's chart lets it create pods beside itself: install Airflow in a namespace of its own and name that." .name) -}}
{{- end -}}
{{- end -}}
{{- if and (include "perennial.stepsApart" $) $v.state.volume.enabled (not $v.state.volume.existingClaim) -}}
{{- $problems = append $problems "A claim belongs to one namespace, so steps in steps.namespace could not mount the one that the chart creates: make a claim of the same name in both namespaces, on the same file system, and name it in state.volume.existingClaim; or set every state.uris and switch state.volume off." -}}
{{- end -}}

{{- if $v.networkPolicy.enabled -}}
{{- $used := list -}}
{{- if or (compact (values $v.state.uris)) (and $v.mlflow.enabled $v.mlflow.artifacts.uri) $v.backup.enabled -}}{{- $used = append $used "objectStore" -}}{{- end -}}
{{- if and $v.mlflow.enabled (not $v.postgresql.enabled) -}}{{- $used = append $used "database" -}}{{- end -}}
{{- if not $v.redis.enabled -}}{{- $used = append $used "onlineStore" -}}{{- end -}}
{{- if not $v.mlflow.enabled -}}{{- $used = append $used "mlflow" -}}{{- end -}}
{{- if $v.engine.url -}}{{- $used = append $used "engine" -}}{{- end -}}
{{- range $name := $used -}}
{{- if not (index $v.networkPolicy.external $name).to -}}
{{- $problems = append $problems (printf "networkPolicy.external.%s.to names no addresses: list those of the system, such as [{ipBlock: {cidr: 10.1.0.0/16}}]." $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if and $v.steps.quota.enabled (not $v.priorityClasses.enabled) -}}
{{- $problems = append $problems "steps.quota counts pods by their priority class: it needs priorityClasses.enabled." -}}
{{- end -}}

{{- if and $v.signing.existingSecret (not $v.signing.trustedKeys) -}}
{{- $problems = append $problems "signing.existingSecret signs model versions, and nothing verifies them: list its public key in signing.trustedKeys." -}}
{{- end -}}
{{- if and $v.signing.trustedKeys (not $v.signing.existingSecret) -}}
{{- $problems = append $problems "signing.trustedKeys refuses model versions that are not signed, and nothing signs them: name a Secret with the key signing-key.pem in signing.existingSecret." -}}
{{- end -}}

{{- $own := concat (keys (include "perennial.settings" . | fromYaml)) (list "CT_SERVING_NAME" "CT_SERVING_MODELS" "CT_SERVING_MAXIMUM_MODELS" "CT_SERVING_LOAD_MIB" "CT_SERVING_LOAD_SECONDS" "CT_SERVING_STATE" "CT_SERVING_MANAGEMENT_PORT" "CT_TRUSTED_KEYS" "CT_POD_SIGNING_SECRET" "CT_SIGNING_KEY_FILE") -}}
{{- range $name, $_ := $v.settings -}}
{{- if has $name $own -}}
{{- $problems = append $problems (printf "settings.%s is made from other values of the chart: change those." $name) -}}
{{- end -}}
{{- end -}}

{{- if $problems -}}
{{- fail (printf "\n\n  - %s\n" (join "\n  - " $problems)) -}}
{{- end -}}
{{- end -}}
