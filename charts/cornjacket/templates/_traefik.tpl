{{- /* What goes where: events are posted to ingest and read from query, on the same path. */ -}}
{{- define "cornjacket.traefikRules" -}}
ingest: "(Method(`POST`) && PathPrefix(`/api/v1/events`)) || PathPrefix(`/api/v1/event-types`)"
query: "(!Method(`POST`) && PathPrefix(`/api/v1/events`)) || PathPrefix(`/api/v1/projections`)"
{{- end -}}

{{- define "cornjacket.dev.traefikRoutes" -}}
{{- $roles := include "cornjacket.roles" . | fromYaml -}}
http:
  routers:
{{- range $role, $rule := include "cornjacket.traefikRules" . | fromYaml }}
    {{ $role }}: {entryPoints: [web], service: {{ $role }}, rule: {{ quote $rule }}}
{{- end }}
  services:
{{- range $role, $_ := include "cornjacket.traefikRules" . | fromYaml }}
    {{ $role }}: {loadBalancer: {servers: [{url: "http://{{ include "cornjacket.fullname" $ }}-{{ $role }}:{{ (index $roles $role).port }}"}]}}
{{- end }}
{{- end -}}
