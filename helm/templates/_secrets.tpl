{{/* Names set by extraEnv, as a JSON list; NAME_FILE counts as NAME, too. */}}
{{- define "token-broker.ownNames" -}}
{{- $names := list -}}
{{- range .Values.extraEnv }}{{ $names = concat $names (list .name (trimSuffix "_FILE" .name)) }}{{ end -}}
{{- $names | toJson -}}
{{- end -}}

{{/* The Secret in which a setting is, unless `secrets.from` says another. Empty if there is none. */}}
{{- define "token-broker.secretName" -}}
{{- if .Values.secrets.create -}}{{ include "token-broker.fullname" . }}{{- else -}}{{ .Values.secrets.existingSecret }}{{- end -}}
{{- end -}}

{{/* Secret settings that the configuration needs, as a JSON list. */}}
{{- define "token-broker.neededSecrets" -}}
{{- $settings := .Values.settings -}}
{{- $needed := list "DATABASE_URL" "SECRET_KEY" -}}
{{- $source := $settings.BROKER_SECRET_SOURCE | default "env" -}}
{{- if eq $source "env" -}}
{{- $needed = concat $needed (list "GOOGLE_CLIENT_ID" "GOOGLE_CLIENT_SECRET") -}}
{{- else if eq $source "file" -}}
{{- $needed = append $needed "GOOGLE_CREDENTIALS_FILE" -}}
{{- else if eq ($settings.VAULT_AUTH | default "token") "token" -}}
{{- $needed = append $needed "VAULT_TOKEN" -}}
{{- else if eq $settings.VAULT_AUTH "approle" -}}
{{- $needed = concat $needed (list "VAULT_ROLE_ID" "VAULT_SECRET_ID") -}}
{{- end -}}
{{- if $settings.BROKER_WEBHOOK_URL }}{{ $needed = append $needed "BROKER_WEBHOOK_SECRET" }}{{ end -}}
{{- $needed | toJson -}}
{{- end -}}

{{/* Where each secret setting comes from, as JSON {"refs": [{"setting", "secret", "key"}]}; those of extraEnv are not among
     them, and `secret` is empty where nothing says it. */}}
{{- define "token-broker.secretRefs" -}}
{{- $own := include "token-broker.ownNames" . | fromJsonArray -}}
{{- $default := include "token-broker.secretName" . -}}
{{- $from := .Values.secrets.from -}}
{{- $names := concat (include "token-broker.neededSecrets" . | fromJsonArray) (keys $from) -}}
{{- if .Values.secrets.create }}{{ $names = concat $names (keys .Values.secrets.values) }}{{ end -}}
{{- $refs := list -}}
{{- range $name := $names | uniq | sortAlpha -}}
{{- if not (has $name $own) -}}
{{- $place := get $from $name | default dict -}}
{{- $key := $place.key | default (eq $name "GOOGLE_CREDENTIALS_FILE" | ternary "credentials.json" $name) -}}
{{- $refs = append $refs (dict "setting" $name "secret" ($place.name | default $default) "key" $key) -}}
{{- end -}}
{{- end -}}
{{- dict "refs" $refs | toJson -}}
{{- end -}}

{{/* One projected volume with a file per setting. Argument: (dict "refs" (list …)) */}}
{{- define "token-broker.secretsVolume" -}}
name: secrets
projected:
  # 0440: the group is podSecurityContext.fsGroup.
  defaultMode: 288
  sources:
    {{- range .refs }}
    - secret:
        name: {{ .secret }}
        items:
          - key: {{ .key | quote }}
            path: {{ .setting }}
    {{- end }}
{{- end -}}

{{/* Argument: as above */}}
{{- define "token-broker.secretsEnv" -}}
{{- range .refs }}
- name: {{ .setting }}{{ if ne .setting "GOOGLE_CREDENTIALS_FILE" }}_FILE{{ end }}
  value: /etc/token-broker/secrets/{{ .setting }}
{{- end }}
{{- end -}}

{{/* The references that have a Secret, as JSON like token-broker.secretRefs; only those in `only`, if that is given. */}}
{{- define "token-broker.mountedRefs" -}}
{{- $refs := list -}}
{{- range (include "token-broker.secretRefs" .root | fromJson).refs -}}
{{- if and .secret (or (not $.only) (has .setting $.only)) }}{{ $refs = append $refs . }}{{ end -}}
{{- end -}}
{{- dict "refs" $refs | toJson -}}
{{- end -}}
