{{- /*
The roles: what each listens on, and what it must be told of. `serves`: answers clients. `bus`: needs the brokers.
`api`: talks to the Kubernetes API. `mqtt`: takes events from the MQTT broker. `webhooks`: delivers to endpoints anywhere.
*/ -}}
{{- define "cornjacket.roles" -}}
{{- if le (len .Values.watchNamespaces) 1 }}
ingest: {port: 8080, serves: true, databases: [ingestion], mqtt: true}
relay: {port: 8083, databases: [ingestion], bus: true}
handle: {port: 8084, databases: [eventhandler, ingestion, tsdb], bus: true}
query: {port: 8081, serves: true, databases: [query, ingestion, tsdb]}
act: {port: 8082, databases: [actions, ingestion], webhooks: true}
controllers: {port: 8085, databases: {{ include "cornjacket.migrated" . }}, bus: true, api: true}
{{- else }}
controllers: {port: 8085, databases: [], bus: true, api: true}
{{- end }}
{{- end -}}

{{- /* The databases that have tables of ours; those that are not named are the projections'. */ -}}
{{- define "cornjacket.migrated" -}}
[ingestion, eventhandler{{ if .Values.databases.tsdb.existingSecret }}, tsdb{{ end }}{{ if .Values.databases.actions.existingSecret }}, actions{{ end }}]
{{- end -}}

{{- /* The MQTT broker, if there is one. */ -}}
{{- define "cornjacket.mqttUrl" -}}
{{- .Values.mqtt.url | default (ternary (printf "mqtt://%s-dev-emqx:1883" (include "cornjacket.fullname" .)) "" .Values.dev.emqx.enabled) -}}
{{- end -}}

{{- /* What runs a component's pods: sessions at an MQTT broker need pods whose names stay. Takes {root, roles}. */ -}}
{{- define "cornjacket.workload" -}}
{{- ternary "StatefulSet" "Deployment" (and (has "ingest" .roles) (ne (include "cornjacket.mqttUrl" .root) "")) -}}
{{- end -}}

{{- define "cornjacket.mqtt" -}}
{{- with include "cornjacket.mqttUrl" . }}
- name: MQTT_URL
  value: {{ . | quote }}
- name: MQTT_SHARE
  value: {{ $.Values.mqtt.share | quote }}
- name: MQTT_SHARE_KEEPS_ORDER
  value: {{ $.Values.mqtt.shareKeepsOrder | quote }}
{{- range ternary (list "MQTT_USERNAME" "MQTT_PASSWORD") list (ne $.Values.mqtt.existingSecret "") }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: {name: {{ $.Values.mqtt.existingSecret }}, key: {{ . }}}
{{- end }}
{{- if $.Values.mqtt.tls.existingSecret }}
- name: MQTT_CA_FILE
  value: /etc/cornjacket/mqtt/ca.crt
{{- if $.Values.mqtt.tls.clientCertificate }}
- name: MQTT_CERT_FILE
  value: /etc/cornjacket/mqtt/tls.crt
- name: MQTT_KEY_FILE
  value: /etc/cornjacket/mqtt/tls.key
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* The component that a role's pods are labelled with: its own, or the one pod of all. Takes {root, role}. */ -}}
{{- define "cornjacket.component" -}}
{{- ternary "all" .role .root.Values.single -}}
{{- end -}}

{{- /* Fewest pods of a role, as autoscaling or the values say. Takes {root, role}. */ -}}
{{- define "cornjacket.replicas" -}}
{{- $role := index .root.Values.roles .role -}}
{{- if .root.Values.single -}}
1
{{- else if dig "autoscaling" "enabled" false $role -}}
{{ $role.autoscaling.minReplicas }}
{{- else -}}
{{ $role.replicas }}
{{- end -}}
{{- end -}}

{{- /* The namespace whose resources the data plane runs: the watched one, if it is one. */ -}}
{{- define "cornjacket.instance" -}}
{{- if eq (len .Values.watchNamespaces) 1 -}}
{{ first .Values.watchNamespaces }}
{{- else -}}
{{ .Release.Namespace }}
{{- end -}}
{{- end -}}

{{- /*
The handler's Deployment, if the controllers set its size by what projections ask for (spec.replicas): where it is one of its
own, nothing else scales it, and its projections are those of one namespace. Otherwise empty.
*/ -}}
{{- define "cornjacket.scaledHandler" -}}
{{- $one := le (len .Values.watchNamespaces) 1 -}}
{{- if and (not .Values.single) $one (not (dig "autoscaling" "enabled" false .Values.roles.handle)) -}}
{{ include "cornjacket.fullname" . }}-handle
{{- end -}}
{{- end -}}

{{- /* What `act` is told of endpoints; and where its pods share what must not be each pod's own. */ -}}
{{- define "cornjacket.webhooks" -}}
{{- $webhooks := .Values.webhooks -}}
{{- with $webhooks.allow }}
- name: CORNJACKET_WEBHOOK_ALLOW
  value: {{ join "," . | quote }}
{{- end }}
- name: CORNJACKET_WEBHOOK_REDIRECTS
  value: {{ $webhooks.redirects | quote }}
- name: CORNJACKET_WEBHOOK_CONCURRENCY
  value: {{ $webhooks.concurrency | quote }}
- name: CORNJACKET_DELIVERY_RETENTION_HOURS
  value: {{ $webhooks.retentionHours | quote }}
{{- if $webhooks.caBundle.existingSecret }}
- name: CORNJACKET_WEBHOOK_CA_FILE
  value: /etc/cornjacket/webhooks/ca.crt
{{- end }}
{{- if $webhooks.redis.existingSecret }}
- name: REDIS_URL
  valueFrom:
    secretKeyRef: {name: {{ $webhooks.redis.existingSecret }}, key: {{ $webhooks.redis.key }}}
{{- else if or (gt (int (include "cornjacket.replicas" (dict "root" . "role" "act"))) 1) (and (not .Values.single) .Values.roles.act.autoscaling.enabled) }}
{{- fail "webhooks.redis.existingSecret: several pods of act share rate limits, breakers and the deduplication in a Redis: name the Secret that holds its REDIS_URL, or leave roles.act at one pod" }}
{{- end }}
{{- end -}}

{{- /*
One database's URL as an environment variable. Where none is named, that of the actions is the projections', and nothing is said of that of the
time series, which is so by itself. Takes {root, name}.
*/ -}}
{{- define "cornjacket.database" -}}
{{- if or (ne .name "tsdb") (index .root.Values.databases .name).existingSecret -}}
{{- $dev := .root.Values.dev.postgresql.enabled | ternary (printf "%s-dev-databases" (include "cornjacket.fullname" .root)) "" -}}
{{- $database := index .root.Values.databases .name -}}
{{- if and (eq .name "actions") (not $database.existingSecret) -}}
{{- $database = .root.Values.databases.eventhandler -}}
{{- end -}}
{{- $variable := printf "%s_DATABASE_URL" (upper .name) -}}
- name: {{ $variable }}
  valueFrom:
    secretKeyRef:
      name: {{ $database.existingSecret | default $dev | required (printf "databases.%s.existingSecret: name the Secret that holds %s (values-production.yaml shows how to make it), or begin with values-dev.yaml" .name $variable) }}
      key: {{ $database.key }}
{{- end -}}
{{- end -}}

{{- define "cornjacket.bus" -}}
- name: CORNJACKET_BUS
  value: {{ .Values.bus }}
{{- if eq .Values.bus "kafka" }}
{{- $dev := .Values.dev.redpanda.enabled | ternary (printf "%s-dev-redpanda:9092" (include "cornjacket.fullname" .)) "" }}
- name: KAFKA_BROKERS
{{- if or .Values.kafka.brokers (not .Values.kafka.existingSecret) }}
  value: {{ .Values.kafka.brokers | default $dev | required "kafka.brokers: with bus kafka name the brokers here, or a Secret that does in kafka.existingSecret" | quote }}
{{- else }}
  valueFrom:
    secretKeyRef: {name: {{ .Values.kafka.existingSecret }}, key: {{ .Values.kafka.brokersKey }}}
{{- end }}
{{- if .Values.kafka.existingSecret }}
- name: KAFKA_PROPERTIES
  valueFrom:
    secretKeyRef: {name: {{ .Values.kafka.existingSecret }}, key: {{ .Values.kafka.propertiesKey }}, optional: true}
{{- end }}
{{- end }}
{{- end -}}
