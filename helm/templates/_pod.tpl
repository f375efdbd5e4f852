{{/* Volumes, mounts and environment that the broker and migrations share. Argument: (dict "root" $ "refs" (list …)) */}}
{{- define "token-broker.sharedVolumes" -}}
{{- if .refs }}
- {{ include "token-broker.secretsVolume" . | nindent 2 | trim }}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "token-broker.sharedMounts" -}}
{{- if .refs }}
- name: secrets
  mountPath: /etc/token-broker/secrets
  readOnly: true
{{- end }}
{{- with .root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "token-broker.migrateContainer" -}}
{{- $refs := (include "token-broker.mountedRefs" (dict "root" . "only" (list "DATABASE_URL")) | fromJson).refs -}}
{{- $shared := dict "root" . "refs" $refs -}}
name: migrate
image: {{ include "token-broker.image" (dict "root" . "image" .Values.image) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [migrate]
{{- with concat (include "token-broker.secretsEnv" $shared | fromYamlArray) .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
{{- with include "token-broker.sharedMounts" $shared | fromYamlArray }}
volumeMounts:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "token-broker.brokerEnv" -}}
{{- $host := contains ":" .Values.listenAddress | ternary (printf "[%s]" .Values.listenAddress) .Values.listenAddress -}}
- name: BROKER_PUBLIC_LISTEN
  value: {{ printf "%s:8000" $host | quote }}
- name: BROKER_INTERNAL_LISTEN
  value: {{ printf "%s:8001" $host | quote }}
- name: BROKER_OPS_LISTEN
  value: {{ printf "%s:8002" $host | quote }}
- name: BROKER_CALLERS_FILE
  value: /etc/token-broker/callers/callers.yaml
{{- range $name, $value := .Values.settings }}
{{- if ne (toString $value) "" }}
- name: {{ $name }}
  value: {{ kindIs "float64" $value | ternary ($value | int64) $value | toString | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Projected tokens: Vault's at the path where its clients expect it, others below /var/run/secrets/token-broker. */}}
{{- define "token-broker.tokenVolumes" -}}
{{- if has .Values.settings.VAULT_AUTH (list "kubernetes" "jwt") }}
- name: vault-token
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ .Values.vaultToken.audience | quote }}
          expirationSeconds: {{ int .Values.vaultToken.expirationSeconds }}
{{- end }}
{{- with .Values.serviceAccount.tokens }}
- name: tokens
  projected:
    sources:
      {{- range . }}
      - serviceAccountToken:
          path: {{ .path | quote }}
          {{- with .audience }}
          audience: {{ . | quote }}
          {{- end }}
          expirationSeconds: {{ int (.expirationSeconds | default 3600) }}
      {{- end }}
{{- end }}
{{- end -}}

{{- define "token-broker.tokenMounts" -}}
{{- if has .Values.settings.VAULT_AUTH (list "kubernetes" "jwt") }}
- name: vault-token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}
{{- if .Values.serviceAccount.tokens }}
- name: tokens
  mountPath: /var/run/secrets/token-broker
  readOnly: true
{{- end }}
{{- end -}}

{{/* What every pod of the chart has. Argument: (dict "root" $ "securityContext" .Values.podSecurityContext) */}}
{{- define "token-broker.podDefaults" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .securityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}
