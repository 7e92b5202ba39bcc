{{- define "cornjacket.name" -}}
{{- .Values.nameOverride | default .Chart.Name -}}
{{- end -}}

{{- /* The start of every object's name. Room is left for the longest suffix. */ -}}
{{- define "cornjacket.fullname" -}}
{{- $name := include "cornjacket.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Labels by which pods are found: they can never change. Takes {root, component}. */ -}}
{{- define "cornjacket.selector" -}}
app.kubernetes.io/name: {{ include "cornjacket.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* The same as an expression, for autoscalers. Takes {root, component}. */ -}}
{{- define "cornjacket.selectorExpression" -}}
app.kubernetes.io/name={{ include "cornjacket.name" .root }},app.kubernetes.io/instance={{ .root.Release.Name }},app.kubernetes.io/component={{ .component }}
{{- end -}}

{{- /* Labels of every object. Takes {root, component}. */ -}}
{{- define "cornjacket.labels" -}}
{{ include "cornjacket.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "cornjacket.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}
