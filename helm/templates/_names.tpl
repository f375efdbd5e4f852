{{- define "token-broker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 46 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 46 characters: a CronJob's name may have 52, the longest suffix has six. A release's name may have dots,
     a Service's may not. */}}
{{- define "token-broker.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else if contains (include "token-broker.name" .) .Release.Name -}}
{{- .Release.Name | replace "." "-" | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "token-broker.name" .) | replace "." "-" | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "token-broker.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "token-broker.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Labels that select pods. Argument: (dict "root" $ "component" "broker") */}}
{{- define "token-broker.selectorLabels" -}}
app.kubernetes.io/name: {{ include "token-broker.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object or a pod; the chart's own win. Argument: as above, and optionally "labels" and, where no label of
     the user's may be, "private" */}}
{{- define "token-broker.labels" -}}
{{- $version := .root.Values.image.tag | default .root.Chart.AppVersion | trunc 63 | trimAll "-_." -}}
{{- $own := include "token-broker.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" $version -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "token-broker" -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $chart := printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 -}}
{{- $_ := set $own "helm.sh/chart" ($chart | trimSuffix "-") -}}
{{- toYaml (merge dict $own (deepCopy (.labels | default dict)) (hasKey . "private" | ternary dict .root.Values.commonLabels)) -}}
{{- end -}}

{{/* Labels of a pod: without those that change with the chart alone, since a change of them restarts all pods. */}}
{{- define "token-broker.podLabels" -}}
{{- toYaml (omit (include "token-broker.labels" . | fromYaml) "helm.sh/chart" "app.kubernetes.io/managed-by") -}}
{{- end -}}

{{/* Argument: (dict "root" $ "image" .Values.image) */}}
{{- define "token-broker.image" -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) -}}
{{- with .image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* The hosts of the redirect URIs, as a JSON list: the only ones whose links lead here. */}}
{{- define "token-broker.hosts" -}}
{{- $hosts := list -}}
{{- range splitList "," .Values.settings.GOOGLE_REDIRECT_URI -}}
{{- $hosts = append $hosts (regexReplaceAll ":[0-9]+$" (urlParse (trim .)).host "" | lower) -}}
{{- end -}}
{{- $hosts | compact | uniq | toJson -}}
{{- end -}}

{{/* "yes" if an object of a mode `auto`, `always` or `never` is to be rendered.
     Argument: (dict "root" $ "mode" "auto" "api" "monitoring.coreos.com/v1/ServiceMonitor") */}}
{{- define "token-broker.isWanted" -}}
{{- if eq .mode "always" }}yes{{ else if eq .mode "auto" -}}
{{- if .root.Capabilities.APIVersions.Has .api }}yes{{ end -}}
{{- end -}}
{{- end -}}

{{- define "token-broker.hasSeveralReplicas" -}}
{{- if .Values.autoscaling.enabled -}}
{{- if gt (int .Values.autoscaling.minReplicas) 1 }}yes{{ end -}}
{{- else if gt (int .Values.replicaCount) 1 }}yes{{ end -}}
{{- end -}}
