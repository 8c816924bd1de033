{{/* What is fixed about each service, whatever the values say. A workload with a volume of its own is a StatefulSet; `callers` may ask it by Dapr's service
invocation, each for these paths: the runner says which of its queues are full, and where a task stands. */}}
{{- define "fte.facts" -}}
intake: {appPort: 7401, state: true, volume: false}
runner: {appPort: 7402, state: true, volume: true, callers: {intake: /pool/full, status: "/pool/tasks/*"}}
{{- if eq .Values.services.status.database "postgresql" }}
status: {appPort: 7403, state: false, volume: false}
{{- else }}
status: {appPort: 7403, state: false, volume: true, replicas: 1}
{{- end }}
audit: {appPort: 7404, state: false, volume: true, replicas: 1}
{{- end }}

{{/* All services: facts, defaults, and the values of each, merged. `(include "fte.services" . | fromYaml)`. */}}
{{- define "fte.services" -}}
{{- $services := dict }}
{{- range $name, $fact := include "fte.facts" . | fromYaml }}
{{- $own := index $.Values.services $name }}
{{- $service := mustMergeOverwrite (deepCopy $.Values.defaults) (deepCopy $own) $fact (dict "id" (printf "fte-%s" $name)) }}
{{- $_ := set $services $name $service }}
{{- end }}
{{- toYaml $services }}
{{- end }}

{{/* The agents of agents.toml, by the tables that begin with [agents.NAME]; the built-in ones where there is none. */}}
{{- define "fte.agents" -}}
{{- $names := list "demo" "echo" }}
{{- if .Values.agents.toml }}
{{- $names = list }}
{{- range regexFindAll "(?m)^[ \\t]*\\[agents\\.[a-z0-9-]{1,40}\\]" .Values.agents.toml -1 }}
{{- $names = append $names (. | trim | trimPrefix "[agents." | trimSuffix "]") }}
{{- end }}
{{- end }}
{{- $names | uniq | sortAlpha | toJson }}
{{- end }}

{{/* The topics of the catalogue, from a file that a test compares with it, and one for the hand-offs to each agent. */}}
{{- define "fte.topics" -}}
{{- $topics := list }}
{{- range $topic := .Files.Get "files/topics.json" | fromJsonArray }}
{{- if eq $topic.name "fte.handoffs.human" }}
{{- range include "fte.agents" $ | fromJsonArray }}
{{- if ne . "human" }}{{ $topics = append $topics (merge (dict "name" (printf "fte.handoffs.%s" .)) $topic) }}{{ end }}
{{- end }}
{{- end }}
{{- $topics = append $topics $topic }}
{{- end }}
{{- toJson $topics }}
{{- end }}

{{/* Topic scopes in Dapr's form, `app=topic,topic;app=`. An app that is not named could use every topic: all are. (list . "publishers") */}}
{{- define "fte.scopes" -}}
{{- $root := index . 0 }}{{ $role := index . 1 }}
{{- $apps := list }}
{{- range $name, $_ := include "fte.facts" $root | fromYaml }}
{{- $topics := list }}
{{- range include "fte.topics" $root | fromJsonArray }}
{{- if has $name (index . $role) }}{{ $topics = append $topics .name }}{{ end }}
{{- end }}
{{- $apps = append $apps (printf "fte-%s=%s" $name (join "," $topics)) }}
{{- end }}
{{- join ";" $apps }}
{{- end }}

{{/* The topics that bring a service work, which is what KEDA counts: requests, and what agents hand on. (list . "runner") */}}
{{- define "fte.workTopics" -}}
{{- $topics := list }}
{{- range include "fte.topics" (index . 0) | fromJsonArray }}
{{- if and (has (index $ 1) .subscribers) (or (eq .name "fte.triggers.inbound") (hasPrefix "fte.handoffs." .name)) }}{{ $topics = append $topics .name }}{{ end }}
{{- end }}
{{- toJson $topics }}
{{- end }}

{{- define "fte.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* How links to the API begin. */}}
{{- define "fte.publicUrl" -}}
{{- if .Values.api.publicUrl }}
{{- .Values.api.publicUrl }}
{{- else if .Values.route.hosts }}
{{- printf "https://%s" (first .Values.route.hosts) }}
{{- end }}
{{- end }}

{{/* (list . "fte-intake") */}}
{{- define "fte.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{- define "fte.labels" -}}
{{ include "fte.selector" . }}
{{- with index . 0 }}
app.kubernetes.io/part-of: fte
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
{{- end }}

{{/* How long a sidecar goes on after SIGTERM, in seconds. */}}
{{- define "fte.block" -}}
{{ with .Values.shutdown }}{{ add .preStopSeconds .drainSeconds .marginSeconds }}{{ end }}
{{- end }}

{{- define "fte.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "fte.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The secret of a service's Kafka user. (list . "runner") */}}
{{- define "fte.kafkaSecret" -}}
{{- $auth := (index . 0).Values.kafka.auth }}
{{- get $auth.secrets (index . 1) | default $auth.secret }}
{{- end }}

{{/* The component by which a service speaks to Kafka. Its name is that of an object, so users of their own take components of their own. (list . "runner") */}}
{{- define "fte.pubsub" -}}
{{- (index . 0).Values.kafka.auth.secrets | empty | ternary "pubsub" (printf "pubsub-%s" (index . 1)) }}
{{- end }}

{{/* Which Kafka user: metadata of the component. (list . "secret-of-the-user") */}}
{{- define "fte.kafkaAuth" -}}
{{- $secret := index . 1 }}
{{- with (index . 0).Values.kafka.auth }}
{{- if eq .type "none" }}
- {name: authType, value: none}
{{- else if eq .type "mtls" }}
- {name: authType, value: mtls}
- name: clientCert
  secretKeyRef: {name: {{ $secret }}, key: user.crt}
- name: clientKey
  secretKeyRef: {name: {{ $secret }}, key: user.key}
{{- else }}
- {name: authType, value: password}
- {name: saslMechanism, value: {{ eq .type "plain" | ternary "PLAINTEXT" .mechanism | quote }}}
- name: saslUsername
  secretKeyRef: {name: {{ $secret }}, key: username}
- name: saslPassword
  secretKeyRef: {name: {{ $secret }}, key: password}
{{- end }}
{{- if and (ne .type "none") (ne .ca "public") }}
- name: caCert
  secretKeyRef: {name: {{ .caSecret | default $secret }}, key: ca.crt}
{{- end }}
{{- end }}
{{- end }}

{{/* Keys of the audit log that are given: the file of each, and its secret. */}}
{{- define "fte.auditKeys" -}}
{{- range $file, $secret := dict "log.key" .Values.services.audit.keys.log "log.next.key" .Values.services.audit.keys.next "master.key" .Values.services.audit.keys.master }}
{{- if $secret }}
{{ $file }}: {{ $secret }}
{{- end }}
{{- end }}
{{- end }}

{{/* A volume as Kubernetes itself would mount it into each container, with a token of the pod's own account. */}}
{{- define "fte.kubernetesToken" -}}
projected:
  sources:
    - serviceAccountToken: {path: token, expirationSeconds: 3607}
    - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
    - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}

{{/* Where artifacts are kept: the same for runner and status. */}}
{{- define "fte.artifactsEnv" -}}
{{- with .Values.artifacts }}
{{- if eq .kind "claim" }}
- {name: FTE_ARTIFACTS, value: /artifacts}
{{- else if eq .kind "s3" }}
{{- with .s3 }}
- {name: FTE_ARTIFACTS, value: {{ printf "s3://%s%s" .bucket (empty .prefix | ternary "" (print "/" .prefix)) | quote }}}
{{- if .endpoint }}
- {name: AWS_ENDPOINT_URL_S3, value: {{ .endpoint | quote }}}
{{- end }}
- {name: AWS_REGION, value: {{ .region | quote }}}
- {name: FTE_ARTIFACTS_PATH_STYLE, value: {{ .pathStyle | quote }}}
{{- if .allowHttp }}
- {name: FTE_ARTIFACTS_ALLOW_HTTP, value: "true"}
{{- end }}
{{- if .secret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: accessKeyId}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: secretAccessKey}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
