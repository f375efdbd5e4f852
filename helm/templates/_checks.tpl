{{/* What the schema can't see. All problems at once, one line each; nothing is installed then. */}}
{{- define "token-broker.checks" -}}
{{- $problems := list -}}
{{- range $check := list "required" "secrets" "listeners" "extraObjects" "termination" "drill" -}}
{{- range include (printf "token-broker.checks.%s" $check) $ | splitList "\n" -}}
{{- with trim . }}{{ $problems = append $problems . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if $problems }}{{ fail (printf "\n%s" (join "\n" $problems)) }}{{ end -}}
{{- end -}}

{{- define "token-broker.checks.required" }}
{{- if not .Values.image.repository }}
image.repository is missing: name the broker's image, for example registry.example.com/token-broker
{{- end }}
{{- if not .Values.settings.GOOGLE_REDIRECT_URI }}
settings.GOOGLE_REDIRECT_URI is missing: https://HOST/auth/google/callback, as registered at Google
{{- end }}
{{- if not .Values.settings.GOOGLE_SCOPES }}
settings.GOOGLE_SCOPES is missing: all scopes that links may ask for, with spaces between
{{- end }}
{{- if and (eq (.Values.settings.BROKER_SECRET_SOURCE | default "env") "vault") (not .Values.settings.VAULT_ADDR) }}
settings.VAULT_ADDR is missing: BROKER_SECRET_SOURCE is vault
{{- end }}
{{- if and (has .Values.settings.VAULT_AUTH (list "kubernetes" "jwt")) (not .Values.settings.VAULT_ROLE) }}
settings.VAULT_ROLE is missing: VAULT_AUTH is {{ .Values.settings.VAULT_AUTH }}
{{- end }}
{{- end -}}

{{- define "token-broker.checks.secrets" }}
{{- $secrets := .Values.secrets }}
{{- if and $secrets.create $secrets.existingSecret }}
secrets.create and secrets.existingSecret exclude each other: unset one
{{- end }}
{{- if and $secrets.values (not $secrets.create) }}
secrets.values is only used with secrets.create, which is for trials
{{- end }}
{{- $missing := list }}
{{- range (include "token-broker.secretRefs" . | fromJson).refs }}
{{- if not .secret }}
{{- if or (hasKey $secrets.from .setting) (not $.Values.extraEnvFrom) }}{{ $missing = append $missing .setting }}{{ end }}
{{- else if and $secrets.create (not (hasKey $secrets.from .setting)) (not (get $secrets.values .setting)) }}
secrets.values.{{ .setting }} is missing
{{- else if and $secrets.mustExist (not $secrets.create) }}
{{- include "token-broker.checks.inCluster" (dict "root" $ "ref" .) }}
{{- end }}
{{- end }}
{{- if $missing }}
secrets.existingSecret is missing: a Secret with {{ join ", " $missing }} (for trials: secrets.create)
{{- end }}
{{- end -}}

{{/* Nothing can be looked up when the chart is rendered without a cluster. */}}
{{- define "token-broker.checks.inCluster" }}
{{- $namespace := .root.Release.Namespace }}
{{- if lookup "v1" "ServiceAccount" $namespace "default" }}
{{- $found := lookup "v1" "Secret" $namespace .ref.secret }}
{{- if not $found }}
the Secret {{ .ref.secret }} is not in namespace {{ $namespace }}; it must hold {{ .ref.key }} (secrets.mustExist)
{{- else if not (hasKey ($found.data | default dict) .ref.key) }}
the Secret {{ .ref.secret }} in namespace {{ $namespace }} has no key {{ .ref.key }} (secrets.mustExist)
{{- end }}
{{- end }}
{{- end -}}

{{- define "token-broker.checks.listeners" }}
{{- $fullname := include "token-broker.fullname" . }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
httpRoute.parentRefs is empty: name the Gateway, for example [{name: public, namespace: gateways}]
{{- end }}
{{- range $place, $annotations := dict "ingress" .Values.ingress.annotations "httpRoute" .Values.httpRoute.annotations "services.public" .Values.services.public.annotations }}
{{- range $key, $value := $annotations }}
{{- if contains "snippet" $key }}
{{ $place }}.annotations: {{ $key }} is refused: a snippet could publish another listener
{{- else if or (contains (printf "%s-internal" $fullname) $value) (contains (printf "%s-ops" $fullname) $value) }}
{{ $place }}.annotations: {{ $key }} names the internal or ops Service: only the public listener may be published
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "token-broker.extraObject" -}}
{{- tpl (kindIs "string" .object | ternary .object (toYaml .object)) .root -}}
{{- end -}}

{{- define "token-broker.checks.extraObjects" }}
{{- range $index, $object := .Values.extraObjects }}
{{- $rendered := include "token-broker.extraObject" (dict "root" $ "object" $object) }}
{{- $parsed := fromYaml $rendered }}
{{- if regexMatch "(?m)^---" (trim $rendered) }}
extraObjects[{{ $index }}] holds several documents: make each an item of its own
{{- else if hasKey $parsed "Error" }}
extraObjects[{{ $index }}] is not a YAML object
{{- else if not (and $parsed.apiVersion $parsed.kind) }}
extraObjects[{{ $index }}] has no apiVersion or no kind
{{- else if regexMatch "(?i)^(List|.*List|Service|Endpoints|EndpointSlice|.*Ingress|.*Route(TCP|UDP)?|VirtualService|VirtualServer(Route)?|HTTPProxy|Mapping|TCPMapping|TransportServer|.*MultiClusterService|ServiceExport|ServiceImport)$" $parsed.kind }}
extraObjects[{{ $index }}] is a {{ $parsed.kind }}: only the chart's own ingress and httpRoute may publish a listener, the public one
{{- end }}
{{- end }}
{{- end -}}

{{- define "token-broker.checks.termination" }}
{{- $least := add (int .Values.preStopSeconds) 25 }}
{{- if lt (int .Values.terminationGracePeriodSeconds) (int $least) }}
terminationGracePeriodSeconds is {{ int .Values.terminationGracePeriodSeconds }}, and must be at least {{ $least }}: preStopSeconds + 25
{{- end }}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) }}
autoscaling.maxReplicas is less than autoscaling.minReplicas
{{- end }}
{{- end -}}

{{- define "token-broker.checks.drill" }}
{{- if .Values.drill.enabled }}
{{- if not .Values.drill.image.repository }}
drill.image.repository is missing: an image with PostgreSQL's programs beside the broker
{{- end }}
{{- if not .Values.drill.volume }}
drill.volume is missing: the volume with the backups
{{- end }}
{{- end }}
{{- end -}}
