{{/* Checks beyond the schema. Reports all problems together, one line each; then nothing is installed. */}}
{{- define "token-broker.checks" -}}
{{- $problems := list -}}
{{- range $check := list "required" "secrets" "listeners" "environment" "names" "extraObjects" "scaling" "drill" -}}
{{- range include (printf "token-broker.checks.%s" $check) $ | splitList "\n" -}}
{{- with trim . }}{{ $problems = append $problems . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if $problems }}{{ fail (printf "\n%s" (join "\n" $problems)) }}{{ end -}}
{{- end -}}

{{- define "token-broker.checks.required" }}
{{- if not (regexMatch "^[a-z]" (include "token-broker.fullname" .)) }}
{{ include "token-broker.fullname" . }} can't be the name of a Service, which begins with a letter: set fullnameOverride
{{- end }}
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
{{- else if and (eq $.Values.migrations.mode "hook") (not $secrets.create) }}
{{- include "token-broker.checks.inCluster" (dict "root" $ "ref" .) }}
{{- end }}
{{- end }}
{{- if $missing }}
secrets.existingSecret is missing: a Secret with {{ join ", " $missing }} (for trials: secrets.create)
{{- end }}
{{- end -}}

{{/* The hook needs the Secrets before anything of the release exists; without it they may be part of the release.
     `lookup` finds nothing when the chart is rendered without a cluster. */}}
{{- define "token-broker.checks.inCluster" }}
{{- $namespace := .root.Release.Namespace }}
{{- if lookup "v1" "ServiceAccount" $namespace "default" }}
{{- $found := lookup "v1" "Secret" $namespace .ref.secret }}
{{- if not $found }}
the Secret {{ .ref.secret }} is not in namespace {{ $namespace }}; it must hold {{ .ref.key }}
{{- else if not (hasKey ($found.data | default dict) .ref.key) }}
the Secret {{ .ref.secret }} in namespace {{ $namespace }} has no key {{ .ref.key }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "token-broker.checks.listeners" }}
{{- $fullname := include "token-broker.fullname" . }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
httpRoute.parentRefs is empty: name the Gateway, for example [{name: public, namespace: gateways}]
{{- end }}
{{- if or .Values.ingress.enabled .Values.httpRoute.enabled }}
{{- $hosts := include "token-broker.hosts" . | fromJsonArray }}
{{- range $hosts }}
{{- if or (regexMatch "[^-.a-z0-9]" .) (regexMatch "^[0-9.]+$" .) }}
settings.GOOGLE_REDIRECT_URI: the host {{ . }} is no DNS name, so that ingress and httpRoute can't publish it
{{- end }}
{{- end }}
{{- if and .Values.httpRoute.enabled (gt (len $hosts) 16) }}
settings.GOOGLE_REDIRECT_URI has {{ len $hosts }} hosts, and an HTTPRoute takes 16
{{- end }}
{{- end }}
{{- $private := printf "(?i)%s-(internal|ops)\\b|:800[12]\\b" (regexQuoteMeta $fullname) }}
{{- range $place, $annotations := dict "ingress" .Values.ingress.annotations "httpRoute" .Values.httpRoute.annotations "services.public" .Values.services.public.annotations }}
{{- range $key, $value := $annotations }}
{{- if regexMatch "(?i)snippet|/config-|getambassador\\.io/config" $key }}
{{ $place }}.annotations: {{ $key }} is refused: the proxy's configuration in it could publish another listener
{{- else if regexMatch $private $value }}
{{ $place }}.annotations: {{ $key }} names the internal or ops listener: only the public one may be published
{{- end }}
{{- end }}
{{- end }}
{{- range $key, $_ := .Values.podAnnotations }}
{{- if regexMatch "(?i)(^|[./-])cni\\.|^networking\\.gke\\.io/|^k8s\\.ovn\\.org/" $key }}
podAnnotations: {{ $key }} is refused: all three listeners would be open to the pod's other networks
{{- end }}
{{- end }}
{{- range $listener := list "internal" "ops" }}
{{- range (get $.Values.networkPolicy $listener).from }}
{{- if hasSuffix "/0" (dig "ipBlock" "cidr" "" .) }}
networkPolicy.{{ $listener }}.from: {{ .ipBlock.cidr }} is refused: it admits every address
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A later entry of the same name would win. */}}
{{- define "token-broker.checks.environment" }}
{{- $fixed := list "BROKER_PUBLIC_LISTEN" "BROKER_INTERNAL_LISTEN" "BROKER_OPS_LISTEN" "BROKER_CALLERS_FILE" }}
{{- range .Values.extraEnv }}
{{- if has .name $fixed }}
extraEnv: {{ .name }} is refused: the chart sets it
{{- else if or (hasKey $.Values.settings .name) (has .name (list "BROKER_WEBHOOK_URL" "VAULT_AUTH")) }}
extraEnv: {{ .name }} is refused: its place is settings.{{ .name }}
{{- end }}
{{- end }}
{{- range $place, $entries := dict "extraEnv" .Values.extraEnv "drill.extraEnv" .Values.drill.extraEnv }}
{{- $seen := list }}
{{- range $entries }}
{{- if has .name $seen }}
{{ $place }}: {{ .name }} is there twice
{{- end }}
{{- $seen = append $seen .name }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "token-broker.checks.names" }}
{{- $volumes := list "callers" "secrets" "tokens" "vault-token" "backups" "work" }}
{{- range $place, $entries := dict "extraVolumes" .Values.extraVolumes "drill.extraVolumes" .Values.drill.extraVolumes }}
{{- range $entries }}
{{- if has .name $volumes }}
{{ $place }}: the chart has a volume {{ .name }} of its own; take another name
{{- end }}
{{- end }}
{{- end }}
{{- range $place, $entries := dict "extraVolumeMounts" .Values.extraVolumeMounts "drill.extraVolumeMounts" .Values.drill.extraVolumeMounts }}
{{- range $entries }}
{{- if regexMatch "^(/etc|/var/run/secrets)/token-broker(/|$)" .mountPath }}
{{ $place }}: the chart has files of its own in {{ .mountPath }}; take another path
{{- end }}
{{- end }}
{{- end }}
{{- $containers := list "broker" "migrate" "drill" }}
{{- range $place, $entries := dict "extraContainers" .Values.extraContainers "extraInitContainers" .Values.extraInitContainers "drill.initContainers" .Values.drill.initContainers }}
{{- range $entries }}
{{- if has .name $containers }}
{{ $place }}: the chart has a container {{ .name }} of its own; take another name
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

{{- define "token-broker.checks.scaling" }}
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
drill.image.repository is missing: an image with PostgreSQL's programs beside the broker (make drill-image)
{{- end }}
{{- if not (or .Values.drill.volume (has "--restored" .Values.drill.args)) }}
drill.volume is missing: the volume with the backups
{{- end }}
{{- end }}
{{- end -}}
