{{- define "cornjacket.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "cornjacket.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Where pods run and what they are pulled with, each on a line of its own; empty where the values say nothing. */ -}}
{{- define "cornjacket.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- end -}}

{{- /*
Migrations. An init container and no hook: a hook before the installation would run before the database of the development
profile exists, and one after it would wait for roles that wait for it. An init container gives the same order (migrations,
then the role) whoever starts the pod: Helm, a GitOps tool or a scale-up. Where a migration fails, new pods stay in their
init container and the old ones go on. Many at a time are safe: they take a lock, and find nothing left to do.
*/ -}}
{{- define "cornjacket.migrate" -}}
- name: migrate
  image: {{ include "cornjacket.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [migrate]
  env:
{{- if .Values.migrations.existingSecret }}
{{- range include "cornjacket.migrated" . | fromYamlArray }}
{{- $variable := printf "%s_DATABASE_URL" (upper .) }}
  - name: {{ $variable }}
    valueFrom:
      secretKeyRef: {name: {{ $.Values.migrations.existingSecret }}, key: {{ $variable }}}
{{- end }}
{{- else }}
{{- range include "cornjacket.migrated" . | fromYamlArray }}
{{ include "cornjacket.database" (dict "root" $ "name" .) | indent 2 }}
{{- end }}
{{- end }}
  resources: {{ toJson .Values.migrations.resources }}
  securityContext:
{{ include "cornjacket.containerSecurity" . | indent 4 }}
{{- end -}}

{{- /* The container of one role. Takes {root, role}. */ -}}
{{- define "cornjacket.container" -}}
{{- $root := .root }}
{{- $is := index (include "cornjacket.roles" $root | fromYaml) .role }}
{{- $several := gt (len $root.Values.watchNamespaces) 1 }}
{{- $values := index $root.Values.roles .role }}
- name: {{ .role }}
  image: {{ include "cornjacket.image" $root }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  args: [{{ .role }}]
  env:
  - name: CORNJACKET_NAMESPACE
    value: {{ include "cornjacket.instance" $root }}
  - name: CORNJACKET_LOG
    value: {{ $root.Values.logLevel | quote }}
  - name: CORNJACKET_LOG_FORMAT
    value: json
  - name: CORNJACKET_DRAIN_SECONDS
    value: {{ $root.Values.drainSeconds | quote }}
{{- if or (not $several) (not $root.Values.migrations.enabled) }}
  - name: CORNJACKET_NO_MIGRATE
    value: "true"
{{- end }}
{{- if $several }}
  - name: CORNJACKET_NAMESPACE_DATABASES
    value: /etc/cornjacket/databases
{{- end }}
{{- range $is.databases }}
{{- with include "cornjacket.database" (dict "root" $root "name" .) }}
{{ indent 2 . }}
{{- end }}
{{- end }}
{{- if $is.bus }}
{{ include "cornjacket.bus" $root | indent 2 }}
{{- end }}
{{- if $is.mqtt }}
{{- with include "cornjacket.mqtt" $root }}
{{ . | indent 2 }}
{{- end }}
{{- end }}
{{- if $is.webhooks }}
{{ include "cornjacket.webhooks" $root | trim | indent 2 }}
{{- end }}
{{- if $is.api }}
  - name: POD_NAMESPACE
    valueFrom:
      fieldRef: {fieldPath: metadata.namespace}
  - name: CORNJACKET_WATCH_NAMESPACE
    value: {{ $root.Values.watchNamespaces | default (list $root.Release.Namespace) | join "," | quote }}
{{- end }}
{{- if and (or $is.api $is.webhooks) $root.Values.webhooks.key.existingSecret }}
  - name: CORNJACKET_SECRETS_KEY
    valueFrom:
      secretKeyRef: {name: {{ $root.Values.webhooks.key.existingSecret }}, key: {{ $root.Values.webhooks.key.key }}}
{{- end }}
{{- if and $is.api (not $several) }}
  - name: CORNJACKET_HANDLER_SELECTOR
    value: {{ include "cornjacket.selectorExpression" (dict "root" $root "component" (include "cornjacket.component" (dict "root" $root "role" "handle"))) | quote }}
{{- with include "cornjacket.scaledHandler" $root }}
  - name: CORNJACKET_HANDLER_DEPLOYMENT
    value: {{ . }}
  - name: CORNJACKET_HANDLER_REPLICAS
    value: {{ $root.Values.roles.handle.replicas | quote }}
{{- end }}
{{- end }}
{{- range $name, $value := $values.env }}
  - name: {{ $name }}
    value: {{ $value | quote }}
{{- end }}
  ports:
  - name: {{ .role }}
    containerPort: {{ $is.port }}
  startupProbe:
    httpGet: {path: /healthz, port: {{ .role }}}
    periodSeconds: 2
    failureThreshold: 60
  livenessProbe:
    httpGet: {path: /healthz, port: {{ .role }}}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  readinessProbe:
    httpGet: {path: /readyz, port: {{ .role }}}
    periodSeconds: 5
    timeoutSeconds: 3
{{- if $is.serves }}
  lifecycle:
    preStop:
      # Until load balancers know that the pod leaves.
      sleep: {seconds: 5}
{{- end }}
  resources: {{ toJson $values.resources }}
  securityContext:
{{ include "cornjacket.containerSecurity" . | indent 4 }}
{{- if $is.api }}
  volumeMounts:
  - name: api-access
    mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    readOnly: true
{{- if $several }}
  - name: databases
    mountPath: /etc/cornjacket/databases
    readOnly: true
{{- end }}
{{- else if and $is.webhooks $root.Values.webhooks.caBundle.existingSecret }}
  volumeMounts:
  - name: webhooks-ca
    mountPath: /etc/cornjacket/webhooks
    readOnly: true
{{- else if and $is.mqtt (include "cornjacket.mqttUrl" $root) $root.Values.mqtt.tls.existingSecret }}
  volumeMounts:
  - name: mqtt-tls
    mountPath: /etc/cornjacket/mqtt
    readOnly: true
{{- end }}
{{- end -}}

{{- /* A Deployment, or a StatefulSet. Takes {root, component, roles}. */ -}}
{{- define "cornjacket.deployment" -}}
{{- $root := .root }}
{{- $api := has "controllers" .roles }}
{{- $workload := include "cornjacket.workload" . }}
{{- $mqttTls := and (has "ingest" .roles) (include "cornjacket.mqttUrl" $root) $root.Values.mqtt.tls.existingSecret }}
{{- $webhooksCa := and (has "act" .roles) $root.Values.webhooks.caBundle.existingSecret }}
{{- $several := gt (len $root.Values.watchNamespaces) 1 }}
apiVersion: apps/v1
kind: {{ $workload }}
metadata:
  name: {{ include "cornjacket.fullname" $root }}-{{ .component }}
  labels:
{{ include "cornjacket.labels" . | indent 4 }}
spec:
{{- $scaled := and (has "handle" .roles) (include "cornjacket.scaledHandler" $root) }}
{{- if not (or $scaled (and (not $root.Values.single) (dig "autoscaling" "enabled" false (index $root.Values.roles (first .roles))))) }}
  replicas: {{ include "cornjacket.replicas" (dict "root" $root "role" (first .roles)) }}
{{- end }}
  selector:
    matchLabels:
{{ include "cornjacket.selector" . | indent 6 }}
{{- if eq $workload "StatefulSet" }}
  serviceName: {{ include "cornjacket.fullname" $root }}-ingest
  # The pods do not wait for each other.
  podManagementPolicy: Parallel
{{- else }}
  strategy:
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
{{- end }}
  template:
    metadata:
      labels:
{{ include "cornjacket.selector" . | indent 8 }}
{{- with $root.Values.podLabels }}
{{ toYaml . | indent 8 }}
{{- end }}
      annotations:
        # Whose logs `kubectl logs` shows, beside those of the migrations.
        kubectl.kubernetes.io/default-container: {{ first .roles }}
{{- with $root.Values.podAnnotations }}
{{ toYaml . | indent 8 }}
{{- end }}
    spec:
      serviceAccountName: {{ include "cornjacket.fullname" $root }}{{ if $api }}-controllers{{ end }}
      # Only the controllers' container gets a token, by a volume of its own.
      automountServiceAccountToken: false
      # Kubernetes would set CORNJACKET_QUERY_PORT and the like for each Service here, which are flags of the roles.
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ add $root.Values.drainSeconds 15 }}
      securityContext:
{{ include "cornjacket.podSecurity" . | indent 8 }}
{{- with include "cornjacket.placement" $root | trim }}
{{ . | indent 6 }}
{{- end }}
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: ScheduleAnyway
        labelSelector:
          matchLabels:
{{ include "cornjacket.selector" . | indent 12 }}
{{- if and $root.Values.migrations.enabled (not $several) }}
      initContainers:
{{ include "cornjacket.migrate" $root | indent 6 }}
{{- end }}
      containers:
{{- range .roles }}
{{- include "cornjacket.container" (dict "root" $root "role" .) | trim | nindent 6 }}
{{- end }}
{{- if or $api $mqttTls $webhooksCa }}
      volumes:
{{- end }}
{{- with $mqttTls }}
      - name: mqtt-tls
        secret: {secretName: {{ . }}}
{{- end }}
{{- with $webhooksCa }}
      - name: webhooks-ca
        secret:
          secretName: {{ . }}
          items: [{key: {{ $root.Values.webhooks.caBundle.key }}, path: ca.crt}]
{{- end }}
{{- if $api }}
      - name: api-access
        projected:
          sources:
          - serviceAccountToken: {path: token, expirationSeconds: 3600}
          - configMap:
              name: kube-root-ca.crt
              items: [{key: ca.crt, path: ca.crt}]
          - downwardAPI:
              items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]
{{- if $several }}
      - name: databases
        projected:
          sources:
{{- range $root.Values.watchNamespaces }}
          - secret:
              name: {{ index $root.Values.databases.perNamespace . | required (printf "databases.perNamespace.%s: several namespaces are several platforms: name the Secret with the database URLs of this one" .) }}
              items:
              - {key: INGESTION_DATABASE_URL, path: {{ . }}/INGESTION_DATABASE_URL}
              - {key: EVENTHANDLER_DATABASE_URL, path: {{ . }}/EVENTHANDLER_DATABASE_URL}
          # Those that are others than the projections'.
          - secret:
              name: {{ index $root.Values.databases.perNamespace . }}
              optional: true
              items:
              - {key: TSDB_DATABASE_URL, path: {{ . }}/TSDB_DATABASE_URL}
              - {key: ACTIONS_DATABASE_URL, path: {{ . }}/ACTIONS_DATABASE_URL}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
