{{/* The Board's name. */}}
{{- define "board.name" -}}
{{ .Values.name | default .Release.Name }}
{{- end }}

{{/* The labels of every object of this chart; what the object is comes from the caller: (list "board" $). */}}
{{- define "board.labels" -}}
{{- $root := index . 1 -}}
app.kubernetes.io/name: {{ index . 0 }}
app.kubernetes.io/part-of: tidemark
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}
