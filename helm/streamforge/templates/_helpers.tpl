{{/* Labels. The first argument is (list . COMPONENT). */}}
{{- define "streamforge.selector" -}}
app.kubernetes.io/name: streamforge
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "streamforge.labels" -}}
{{ include "streamforge.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end }}

{{/* An image of ours: (list . NAME). */}}
{{- define "streamforge.image" -}}
{{- $values := (index . 0).Values.images -}}
{{- $digest := get $values.digests (index . 1) -}}
{{ printf "%s/%s:%s" $values.registry (index . 1) ($values.tag | default (index . 0).Chart.AppVersion) }}{{ with $digest }}@{{ . }}{{ end }}
{{- end }}

{{/* What is said of all pods, and over it what is said of these, as YAML: (list . OWN). */}}
{{- define "streamforge.pods" -}}
{{ mergeOverwrite (deepCopy (index . 0).Values.pods) (deepCopy (index . 1)) | toYaml }}
{{- end }}

{{/* Where pods run, of what "streamforge.pods" gives. */}}
{{- define "streamforge.placement" -}}
{{- range $name := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with get $ $name }}
{{ $name }}: {{- if kindIs "string" . }} {{ . }}{{ else }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "streamforge.podLabels" -}}
{{- with .labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "streamforge.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "streamforge.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "streamforge.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* A number without an exponent, anything else as it is: Helm reads every number as a float. */}}
{{- define "streamforge.text" -}}
{{ if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* The online store. */}}
{{- define "streamforge.redisUrl" -}}
{{- $redis := .Values.redis -}}
{{- if eq $redis.inCluster.enabled (ne $redis.url "") -}}
{{ fail "redis: one of url and inCluster.enabled is needed, and only one" }}
{{- end -}}
{{ $redis.url | default "redis://streamforge-redis:6379/0" }}
{{- end }}

{{/* How to connect, by what is connected to: (list . OWN-KAFKA-SECRET NAME…), of kafka, registry and store, as YAML
name → Secret. */}}
{{- define "streamforge.connections" -}}
{{- $values := (index . 0).Values -}}
{{- $kafka := dict "key" $values.kafka.configSecret.key "name" (index . 1 | default $values.kafka.configSecret.name) -}}
{{- $all := dict "kafka" $kafka "registry" $values.registry.configSecret "store" $values.redis.configSecret -}}
{{- $found := dict -}}
{{- range rest . | rest }}
{{- if (get $all .).name }}{{ $_ := set $found . (get $all .) }}{{ end }}
{{- end -}}
{{ toYaml $found }}
{{- end }}

{{- define "streamforge.connectionFlags" -}}
{{- range $name, $secret := include "streamforge.connections" . | fromYaml }}
- --{{ $name }}_config=/etc/streamforge/{{ $name }}/{{ $secret.key }}
{{- end }}
{{- end }}

{{- define "streamforge.connectionMounts" -}}
{{- range $name, $_ := include "streamforge.connections" . | fromYaml }}
- {name: {{ $name }}-config, mountPath: /etc/streamforge/{{ $name }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "streamforge.connectionVolumes" -}}
{{- range $name, $secret := include "streamforge.connections" . | fromYaml }}
- name: {{ $name }}-config
  secret: {secretName: {{ $secret.name }}}
{{- end }}
{{- end }}

{{/* Ports of host:port,host:port or of a URL, once each, for a network policy: (list TEXT PORT-IF-NONE). */}}
{{- define "streamforge.ports" -}}
{{- $ports := list -}}
{{- range splitList "," (index . 0) -}}
{{- $place := regexReplaceAll "^[a-z+]+://([^@/]*@)?" . "" | splitList "/" | first -}}
{{- $parts := splitList ":" $place -}}
{{- $ports = append $ports (ternary (index $parts (sub (len $parts) 1)) (index $ (1)) (gt (len $parts) 1)) -}}
{{- end -}}
{{- range uniq $ports }}
- {protocol: TCP, port: {{ . }}}
{{- end }}
{{- end }}

{{/* Those of the online store. */}}
{{- define "streamforge.redisPorts" -}}
{{- $places := list (include "streamforge.redisUrl" . | trim) -}}
{{- range .Values.redis.ports }}{{ $places = append $places (printf "port:%d" (int64 .)) }}{{ end -}}
{{ include "streamforge.ports" (list (join "," $places) (ternary "26379" "6379" (contains "+sentinel" .Values.redis.url))) }}
{{- end }}

{{/* Peers of a network policy. None would mean everybody, so the schema asks for one at least. */}}
{{- define "streamforge.peers" -}}
{{- range .cidrs }}
- ipBlock: {cidr: {{ . }}}
{{- end }}
{{- range .namespaces }}
- namespaceSelector:
    matchLabels: {kubernetes.io/metadata.name: {{ . }}}
{{- end }}
{{- end }}

{{/* GKE's metadata server, which hands out the tokens of Workload Identity: where it is on either of GKE's networks. */}}
{{- define "streamforge.metadataServer" -}}
- to:
    - ipBlock: {cidr: 169.254.169.254/32}
  ports:
    - {protocol: TCP, port: 80}
    - {protocol: TCP, port: 8080}
- to:
    - ipBlock: {cidr: 169.254.169.252/32}
  ports:
    - {protocol: TCP, port: 987}
    - {protocol: TCP, port: 988}
{{- end }}

{{- define "streamforge.redisPeers" -}}
{{- if .Values.redis.inCluster.enabled }}
- podSelector:
    matchLabels: {{- include "streamforge.selector" (list . "redis") | nindent 6 }}
{{- else }}
{{- include "streamforge.peers" .Values.networkPolicy.redis }}
{{- end }}
{{- end }}
