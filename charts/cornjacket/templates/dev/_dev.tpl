{{- /* The parts that one pod of the development profile has in common with the others. Each takes {root, what}. */ -}}
{{- define "cornjacket.dev.name" -}}
{{ include "cornjacket.fullname" .root }}-dev-{{ .what }}
{{- end -}}

{{- define "cornjacket.dev.metadata" -}}
name: {{ include "cornjacket.dev.name" . }}
labels:
{{ include "cornjacket.labels" (dict "root" .root "component" (printf "dev-%s" .what)) | indent 2 }}
{{- end -}}

{{- define "cornjacket.dev.selector" -}}
{{ include "cornjacket.selector" (dict "root" .root "component" (printf "dev-%s" .what)) }}
{{- end -}}

{{- /* Takes {root, what, user}: the user that the image is made for. */ -}}
{{- define "cornjacket.dev.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /* The volume `data` of a StatefulSet: claimed, or gone with the pod. Takes {root, size}. */ -}}
{{- define "cornjacket.dev.data" -}}
{{- if .root.Values.dev.persistence -}}
volumeClaimTemplates:
- metadata: {name: data}
  spec:
    accessModes: [ReadWriteOnce]
{{- with .root.Values.dev.storageClass }}
    storageClassName: {{ . }}
{{- end }}
    resources: {requests: {storage: {{ .size }}}}
{{- end -}}
{{- end -}}
