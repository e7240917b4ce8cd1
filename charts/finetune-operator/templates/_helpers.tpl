{{- define "finetune-operator.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- .Values.fullnameOverride | default $name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "finetune-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "finetune-operator.ownLabels" -}}
{{ include "finetune-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "finetune-operator.labels" -}}
{{ include "finetune-operator.labelsAnd" (list . (dict)) }}
{{- end }}

{{- /* List of the root and further labels. Merged: the API server refuses a manifest in which a key stands twice. */}}
{{- define "finetune-operator.labelsAnd" -}}
{{- $root := first . -}}
{{- toYaml (merge (include "finetune-operator.ownLabels" $root | fromYaml) (last .) $root.Values.commonLabels) -}}
{{- end }}

{{- define "finetune-operator.serviceAccountName" -}}
{{- $made := ternary (include "finetune-operator.fullname" .) "default" .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default $made -}}
{{- end }}

{{- /* Image as it is pulled: with imageRegistry in the place of its own registry, if it names one. */}}
{{- define "finetune-operator.mirrored" -}}
{{- $parts := splitList "/" .image -}}
{{- $names := and (gt (len $parts) 1) (or (contains "." (first $parts)) (contains ":" (first $parts)) (eq (first $parts) "localhost")) -}}
{{- if not .registry }}{{ .image }}
{{- else if $names }}{{ .registry }}/{{ rest $parts | join "/" }}
{{- else }}{{ .registry }}/{{ .image }}
{{- end -}}
{{- end }}

{{- define "finetune-operator.image" -}}
{{- $version := printf ":%s" (.Values.image.tag | default .Chart.AppVersion) -}}
{{- with .Values.image.digest }}{{ $version = printf "@%s" . }}{{ end -}}
{{- include "finetune-operator.mirrored" (dict "image" (print .Values.image.repository $version) "registry" .Values.imageRegistry) -}}
{{- end }}

{{- /* The operator's settings as it reads them. */}}
{{- define "finetune-operator.settings" -}}
{{- $settings := deepCopy .Values.settings -}}
{{- range $stage, $image := omit $settings.images "pullPolicy" "pullSecrets" -}}
{{- $_ := set $settings.images $stage (include "finetune-operator.mirrored" (dict "image" $image "registry" $.Values.imageRegistry)) -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end }}

{{- define "finetune-operator.dnsEgress" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - {protocol: UDP, port: {{ . }}}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end }}
