{{/* The jobs that are on, with the defaults filled in, as YAML: module → values and `name`. */}}
{{- define "streamforge.jobs" -}}
{{- $root := . -}}
{{- $jobs := dict -}}
{{- range $module, $name := .Files.Get "files/jobs.json" | fromJson -}}
{{- $own := index $root.Values.jobs $module -}}
{{- if $own.enabled -}}
{{- $_ := set $jobs $module (mergeOverwrite (deepCopy $root.Values.jobDefaults) (deepCopy $own) (dict "name" $name)) -}}
{{- end -}}
{{- end -}}
{{ toYaml $jobs }}
{{- end }}

{{/* A topic's name: (list . NAME). */}}
{{- define "streamforge.topic" -}}
{{ (index . 0).Values.kafka.prefix }}{{ index . 1 }}
{{- end }}

{{/* The topics of a job, as YAML: (list . JOB). */}}
{{- define "streamforge.topics" -}}
{{- $root := index . 0 -}}
{{- $job := index . 1 -}}
{{- range concat $job.inputs (compact (list $job.outputs.topic)) (list (printf "dlq.%s" $job.name) (printf "late.%s" $job.name)) }}
- {{ include "streamforge.topic" (list $root .) }}
{{- end }}
{{- end }}

{{/* What the launcher is called with: (list . MODULE JOB). */}}
{{- define "streamforge.jobArgs" -}}
{{- $root := index . 0 -}}
{{- $module := index . 1 -}}
{{- $job := index . 2 -}}
{{- $outputs := $job.outputs -}}
{{- $kafka := printf "kafka://%s" $root.Values.kafka.servers -}}
- -m
- beam_pipelines.{{ $module }}
- --runner=FlinkRunner
- --flink_job_server_jar=/opt/streamforge/flink-job-server.jar
- --output_executable_path=/opt/streamforge/job/job.jar
- --environment_type=EXTERNAL
- --environment_config=localhost:50000
{{- range $job.inputs }}
- --input={{ $kafka }}/{{ include "streamforge.topic" (list $root .) }}
{{- end }}
{{- if $outputs.redis }}
- --output={{ include "streamforge.redisUrl" $root }}
- --store_prefix={{ $root.Values.redis.prefix }}
{{- end }}
{{- with $outputs.topic }}
- --output={{ $kafka }}/{{ include "streamforge.topic" (list $root .) }}
{{- end }}
{{- if $outputs.archive }}
- --output={{ $root.Values.storage.archive }}
{{- end }}
{{- if and $outputs.bigquery $root.Values.bigquery.dataset }}
- --output=bigquery://{{ $root.Values.googleCloud.project | required "bigquery.dataset needs googleCloud.project" }}.{{ $root.Values.bigquery.dataset }}
{{- end }}
- --dead_letters={{ $kafka }}/{{ include "streamforge.topic" (list $root (printf "dlq.%s" $job.name)) }}
- --late={{ $kafka }}/{{ include "streamforge.topic" (list $root (printf "late.%s" $job.name)) }}
- --registry={{ $root.Values.registry.url }}
{{- with $root.Values.kafka.prefix }}
- --group_prefix={{ . }}
{{- end }}
{{- include "streamforge.connectionFlags" (include "streamforge.jobConnections" $job | fromYamlArray | concat (list $root $job.kafkaSecret)) }}
{{- /* Beam's options win over Flink's configuration: what both have is given to both. Where state is only Flink is told,
as the operator looks there. */}}
- --parallelism={{ int64 $job.parallelism }}
{{- range $name, $value := $job.flags }}
- --{{ snakecase $name }}={{ include "streamforge.text" $value }}
{{- end }}
{{- if $job.rules }}
- --rules=/etc/streamforge/rules/fraud_rules.yaml
{{- end }}
{{- if and $job.hashKeySecret $job.hashKeySecret.name }}
- --hash_key=/etc/streamforge/hash-key/{{ $job.hashKeySecret.key }}
{{- end }}
{{- end }}

{{/* What a job connects to, as YAML. */}}
{{- define "streamforge.jobConnections" -}}
{{ ternary (list "kafka" "registry" "store") (list "kafka" "registry") (not (not .outputs.redis)) | toYaml }}
{{- end }}

{{/* Environment and files that launcher and workers share: (list . JOB). */}}
{{- define "streamforge.jobEnv" -}}
- {name: HOME, value: /tmp}
{{- with (index . 0).Values.googleCloud.project }}
- {name: GOOGLE_CLOUD_PROJECT, value: {{ . }}}
{{- end }}
{{- with (include "streamforge.pods" (list (index . 0) (index . 1).pods) | fromYaml).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "streamforge.jobMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- with (include "streamforge.pods" (list (index . 0) (index . 1).pods) | fromYaml).extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- include "streamforge.connectionMounts" (include "streamforge.jobConnections" (index . 1) | fromYamlArray | concat (list (index . 0) (index . 1).kafkaSecret)) }}
{{- with (index . 1).hashKeySecret }}
{{- if .name }}
- {name: hash-key, mountPath: /etc/streamforge/hash-key, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{/* What of Flink's configuration is the chart's: (list . JOB). */}}
{{- define "streamforge.flinkConfiguration" -}}
{{- $flink := (index . 0).Values.flink -}}
{{- $state := (index . 0).Values.storage.state -}}
{{- $job := index . 1 -}}
taskmanager.numberOfTaskSlots: {{ int64 $job.taskSlots | quote }}
# Beam's jar is large; the default of 256m is little when a failing job loads it again and again.
taskmanager.memory.jvm-metaspace.size: 512m
{{- /* The operator's configuration takes the place of the image's, and with it of what Java 17 needs. */}}
env.java.opts.all: {{ include "streamforge.javaOptions" . | quote }}
state.backend.type: {{ $job.stateBackend }}
state.backend.incremental: "true"
state.checkpoints.dir: {{ $state }}/checkpoints/{{ $job.name }}
state.savepoints.dir: {{ $state }}/savepoints/{{ $job.name }}
state.checkpoints.num-retained: {{ int64 $flink.retainedCheckpoints | quote }}
execution.checkpointing.interval: {{ int64 $job.flags.checkpointingInterval }}ms
execution.checkpointing.externalized-checkpoint-retention: RETAIN_ON_CANCELLATION
high-availability.type: kubernetes
high-availability.storageDir: {{ $state }}/ha/{{ $job.name }}
restart-strategy.type: exponential-delay
restart-strategy.exponential-delay.initial-backoff: {{ $flink.restart.initialBackoff }}
restart-strategy.exponential-delay.max-backoff: {{ $flink.restart.maxBackoff }}
restart-strategy.exponential-delay.reset-backoff-threshold: {{ $flink.restart.resetBackoffThreshold }}
restart-strategy.exponential-delay.backoff-multiplier: "2.0"
{{ (index . 0).Files.Get "files/flink-metrics.yaml" | trim }}
# The dashboard shows; changes come through the operator.
web.submit.enable: "false"
web.cancel.enable: "false"
kubernetes.operator.job.restart.failed: "true"
kubernetes.operator.periodic.savepoint.interval: {{ $flink.periodicSavepointInterval }}
kubernetes.operator.periodic.checkpoint.interval: {{ $flink.fullCheckpointInterval }}
kubernetes.operator.checkpoint.type: FULL
kubernetes.operator.savepoint.history.max.age: {{ $flink.savepointHistory.maxAge }}
kubernetes.operator.savepoint.history.max.count: {{ int64 $flink.savepointHistory.maxCount | quote }}
# Else the operator would join the containers of podTemplate and of taskManager.podTemplate by their places.
kubernetes.operator.pod-template.merge-arrays-by-name: "true"
{{- end }}

{{- define "streamforge.javaOptions" -}}
--add-exports=java.base/sun.net.util=ALL-UNNAMED {{ "" -}}
--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED --add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED
{{- range list "io" "lang" "lang.invoke" "lang.reflect" "math" "net" "nio" "text" "time" "util" "util.concurrent" "util.concurrent.atomic" "util.concurrent.locks" }} --add-opens=java.base/java.{{ . }}=ALL-UNNAMED{{ end }} --add-opens=java.base/sun.nio.ch=ALL-UNNAMED
{{- end }}

{{- define "streamforge.jobVolumes" -}}
{{- include "streamforge.connectionVolumes" (include "streamforge.jobConnections" (index . 1) | fromYamlArray | concat (list (index . 0) (index . 1).kafkaSecret)) }}
{{- with (index . 1).hashKeySecret }}
{{- if .name }}
- name: hash-key
  secret: {secretName: {{ .name }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "streamforge.workerProbe" -}}
exec:
  command: [python, -c, "import socket; socket.create_connection(('127.0.0.1', 50000), 5)"]
{{- end }}
