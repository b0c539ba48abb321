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
{{ printf "%s/%s:%s" $values.registry (index . 1) ($values.tag | default (index . 0).Chart.AppVersion) }}
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

{{/* The online store. Kubernetes puts what is in the Secret in place of $(REDIS_URL) when it starts the container. */}}
{{- define "streamforge.redisUrl" -}}
{{- $redis := .Values.redis -}}
{{- $given := compact (list (ternary "redis://streamforge-redis:6379/0" "" $redis.inCluster.enabled) $redis.url (ternary "$(REDIS_URL)" "" (ne $redis.urlSecret.name ""))) -}}
{{- if ne (len $given) 1 -}}
{{ fail "redis: one of url, urlSecret.name and inCluster.enabled is needed, and only one" }}
{{- end -}}
{{ first $given }}
{{- end }}

{{/* Its port, for network policies. */}}
{{- define "streamforge.redisPorts" -}}
{{- $url := include "streamforge.redisUrl" . -}}
{{- if eq $url "$(REDIS_URL)" -}}
- {protocol: TCP, port: {{ int64 .Values.redis.urlSecret.port }}}
{{- else -}}
{{ include "streamforge.ports" (list $url "6379") | trim }}
{{- end }}
{{- end }}

{{- define "streamforge.redisEnv" -}}
{{- if .Values.redis.urlSecret.name }}
- name: REDIS_URL
  valueFrom:
    secretKeyRef: {name: {{ .Values.redis.urlSecret.name }}, key: {{ .Values.redis.urlSecret.key }}}
{{- end }}
{{- if .Values.redis.caConfigMap.name }}
- name: SSL_CERT_FILE
  value: /etc/streamforge/redis-ca/{{ .Values.redis.caConfigMap.key }}
{{- end }}
{{- end }}

{{- define "streamforge.redisMount" -}}
{{- if .Values.redis.caConfigMap.name }}
- {name: redis-ca, mountPath: /etc/streamforge/redis-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "streamforge.redisVolume" -}}
{{- if .Values.redis.caConfigMap.name }}
- name: redis-ca
  configMap: {name: {{ .Values.redis.caConfigMap.name }}}
{{- end }}
{{- end }}

{{/* Ports of host:port,host:port or of a URL, once each, for a network policy: (list TEXT PORT-IF-NONE). */}}
{{- define "streamforge.ports" -}}
{{- $ports := list -}}
{{- range splitList "," (index . 0) -}}
{{- $place := regexReplaceAll "^[a-z]+://([^@/]*@)?" . "" | splitList "/" | first -}}
{{- $parts := splitList ":" $place -}}
{{- $ports = append $ports (ternary (index $parts (sub (len $parts) 1)) (index $ (1)) (gt (len $parts) 1)) -}}
{{- end -}}
{{- range uniq $ports }}
- {protocol: TCP, port: {{ . }}}
{{- end }}
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

{{- define "streamforge.redisPeers" -}}
{{- if .Values.redis.inCluster.enabled }}
- podSelector:
    matchLabels: {{- include "streamforge.selector" (list . "redis") | nindent 6 }}
{{- else }}
{{- include "streamforge.peers" .Values.networkPolicy.redis }}
{{- end }}
{{- end }}
